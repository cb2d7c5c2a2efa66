//! A training step's batch in parts that are computed side by side, each by a replica of the network in a thread of its
//! own.
//!
//! Small networks gain little from libtorch's own threads, which share every single operation; whole parts of a batch
//! share nothing until their gradients are added. How a batch is cut is the caller's word, not the machine's: the sum
//! over parts has one order, so the bits do not depend on how many cores there are. Knows no network, loss or
//! optimiser.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use tch::{Kind, Tensor};

use crate::runtime;
use crate::weights::Tensors;

/// A network in training, as a team sees it.
pub trait Member {
    /// A part of a batch.
    type Job: Send + 'static;

    /// What learns, by name: the live tensors.
    fn learned(&self) -> Tensors;

    /// The mean loss of a part, to be differentiated, and terms to report.
    fn loss(&self, job: &Self::Job) -> (Tensor, Vec<f64>);

    /// Adds `share` times the gradient of a part's loss to the weights; gives the terms.
    fn backward(&self, job: &Self::Job, share: f64) -> Vec<f64> {
        let (loss, terms) = self.loss(job);
        (loss * share).backward();
        terms
    }
}

/// What a helper is sent: the share of the part in the batch, and the part.
type Order<J> = (f64, J);
/// What it answers: a gradient for each tensor that learns, in name order (undefined where there is none), and the
/// terms.
type Answer = (Vec<Tensor>, Vec<f64>);

struct Helper<J> {
    orders: Option<Sender<Order<J>>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

/// The threads beside the caller's, or the one who does the caller's work.
pub struct Team<M: Member> {
    helpers: Vec<Helper<M::Job>>,
    apprentice: Option<M>,
    /// What an apprentice's losses are multiplied by before they are differentiated.
    scale: f64,
}

impl<M: Member + Send + 'static> Team<M> {
    /// A thread for each replica. They follow `leader`'s weights, whatever their own are. With replicas the calling
    /// thread runs its operations alone from then on: sums over an operation's threads have another order.
    ///
    /// # Panics
    /// If a replica has other weights, or the system has no thread left.
    pub fn new(leader: &M, replicas: Vec<M>) -> Self {
        if !replicas.is_empty() {
            runtime::one_thread();
        }
        let helpers = replicas.into_iter().map(|replica| helper(leader, replica)).collect();
        Self { helpers, apprentice: None, scale: 1.0 }
    }

    /// A replica in other numbers, such as bfloat16, that computes all parts one after the other in this thread. Its
    /// gradients are added to the leader's, in the leader's numbers: mixed precision.
    ///
    /// # Panics
    /// If the replica has other weights.
    pub fn apprentice(leader: &M, replica: M) -> Self {
        let followed = leader.learned();
        assert!(followed.keys().eq(replica.learned().keys()), "a replica has other weights than its leader");
        // the leader differentiates nothing itself: this gives its weights gradients that can be added to
        followed
            .values()
            .map(|weight| weight.sum(Kind::Float) * 0.0)
            .reduce(|a, b| a + b)
            .expect("something learns")
            .backward();
        Self { helpers: Vec::new(), apprentice: Some(replica), scale: 1.0 }
    }

    /// Multiplies an apprentice's losses before they are differentiated, and divides the gradients, once they are in
    /// the leader's numbers, by as much: small gradients in half precision would be zero.
    pub fn scale_losses(&mut self, factor: f64) {
        self.scale = factor;
    }

    /// Adds the gradient of the whole batch's mean loss to `leader`'s weights. `jobs` are its parts, each with its
    /// share of the samples. Gives the terms' means over the batch.
    ///
    /// # Panics
    /// If a part's loss does: with that panic.
    pub fn backward(&mut self, leader: &M, jobs: Vec<(f64, M::Job)>) -> Vec<f64> {
        if let Some(apprentice) = &self.apprentice {
            return learn_from(apprentice, leader, jobs, self.scale);
        }
        let mut jobs = jobs.into_iter().peekable();
        assert!(jobs.peek().is_some(), "a batch has a part");
        let variables: Vec<Tensor> = leader.learned().into_values().collect();
        let mut terms = Vec::new();
        // as many at a time as there are members, and added in the order of the parts: the sum is the same for any
        // number of them
        while let Some((share, own)) = jobs.next() {
            let mut busy = 0;
            for (helper, order) in self.helpers.iter().zip(&mut jobs) {
                let orders = helper.orders.as_ref().expect("it is closed only when the team is dropped");
                // a helper that is gone is noticed below
                let _ = orders.send(order);
                busy += 1;
            }
            add(&mut terms, differentiate(leader, share, &own));
            for helper in &mut self.helpers[..busy] {
                let Ok((gradients, more)) = helper.answers.recv() else {
                    let thread = helper.thread.take().expect("it was not waited for yet");
                    std::panic::resume_unwind(thread.join().expect_err("it ends by a panic only"));
                };
                tch::no_grad(|| {
                    for (variable, gradient) in variables.iter().zip(gradients).filter(|(_, g)| g.defined()) {
                        // all members have the same graph: what one differentiates, all do
                        let mut sum = variable.grad();
                        sum += gradient;
                    }
                });
                add(&mut terms, more);
            }
        }
        terms
    }
}

/// The parts' gradients, computed by an apprentice of losses times `scale` and added to the leader's.
fn learn_from<M: Member>(apprentice: &M, leader: &M, jobs: Vec<(f64, M::Job)>, scale: f64) -> Vec<f64> {
    let (followed, own) = (leader.learned(), apprentice.learned());
    tch::no_grad(|| own.iter().for_each(|(name, own)| own.shallow_clone().copy_(&followed[name])));
    let mut sums = Vec::new();
    for (share, job) in jobs {
        own.values().for_each(|own| own.shallow_clone().zero_grad());
        let terms = apprentice.backward(&job, share * scale);
        add(&mut sums, terms.into_iter().map(|term| term * share).collect());
        tch::no_grad(|| {
            for (name, gradient) in own.iter().map(|(name, own)| (name, own.grad())).filter(|(_, g)| g.defined()) {
                let mut sum = followed[name].grad();
                sum += gradient.to_kind(sum.kind()) / scale;
            }
        });
    }
    sums
}

fn add(sums: &mut Vec<f64>, terms: Vec<f64>) {
    sums.resize(terms.len(), 0.0);
    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
}

impl<M: Member> Drop for Team<M> {
    fn drop(&mut self) {
        for helper in &mut self.helpers {
            helper.orders = None;
            if let Some(thread) = helper.thread.take() {
                // its panic was raised already, or is of no interest any more
                let _ = thread.join();
            }
        }
    }
}

fn helper<M: Member + Send + 'static>(leader: &M, replica: M) -> Helper<M::Job> {
    let (followed, own) = (leader.learned(), replica.learned());
    assert!(followed.keys().eq(own.keys()), "a replica has other weights than its leader");
    let followed: Vec<Tensor> = followed.into_values().collect();
    let (orders, inbox) = channel::<Order<M::Job>>();
    let (outbox, answers) = channel();
    let work = move || {
        runtime::one_thread();
        let own: Vec<Tensor> = replica.learned().into_values().collect();
        for (share, job) in inbox {
            // the leader changes its weights only between batches
            tch::no_grad(|| {
                for (own, followed) in own.iter().zip(&followed) {
                    own.shallow_clone().copy_(followed);
                    own.shallow_clone().zero_grad();
                }
            });
            let terms = differentiate(&replica, share, &job);
            // the live ones: they are cleared at the next order, which comes after the leader has added them
            let gradients = own.iter().map(Tensor::grad).collect();
            if outbox.send((gradients, terms)).is_err() {
                break;
            }
        }
    };
    let thread = std::thread::Builder::new().name("team".into()).spawn(work).expect("a thread");
    Helper { orders: Some(orders), answers, thread: Some(thread) }
}

fn differentiate<M: Member>(member: &M, share: f64, job: &M::Job) -> Vec<f64> {
    member.backward(job, share).into_iter().map(|term| term * share).collect()
}

/// How a batch of `samples` is cut into at most `parts` parts, as even as can be: start, length and share of each.
pub fn cut(samples: usize, parts: usize) -> Vec<(i64, i64, f64)> {
    let parts = parts.clamp(1, samples.max(1));
    let edge = |i: usize| i * samples / parts;
    let part = |i: usize| {
        let (from, to) = (edge(i), edge(i + 1));
        (from as i64, (to - from) as i64, (to - from) as f64 / samples as f64)
    };
    (0..parts).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;
    use crate::layers::Linear;
    use tch::Device;
    use tch::nn::VarStore;

    struct Net {
        vs: VarStore,
        layer: Linear,
    }

    impl Net {
        fn new(seed: u64) -> Net {
            let (vs, layer) = init::build(Device::Cpu, seed, |p| Linear::new(&(p / "a"), 3, 2));
            Net { vs, layer }
        }
    }

    impl Member for Net {
        type Job = Tensor;
        fn learned(&self) -> Tensors {
            crate::weights::sorted(&self.vs)
        }
        fn loss(&self, job: &Tensor) -> (Tensor, Vec<f64>) {
            assert!(job.size()[1] == 3, "a job has three columns");
            let loss = self.layer.forward(job).square().mean(Kind::Float);
            let value = loss.double_value(&[]);
            (loss, vec![value])
        }
    }

    fn jobs(x: &Tensor, parts: usize) -> Vec<(f64, Tensor)> {
        cut(x.size()[0] as usize, parts).into_iter().map(|(from, n, share)| (share, x.narrow(0, from, n))).collect()
    }

    #[test]
    fn parts_together_have_the_gradient_of_the_whole() {
        let x = init::normal(1, 1, &[7, 3]);
        let whole = Net::new(1);
        let (loss, _) = whole.loss(&x);
        loss.backward();
        let (leader, alone) = (Net::new(1), Net::new(1));
        // replicas with other weights: they follow
        let mut team = Team::new(&leader, vec![Net::new(2), Net::new(3)]);
        // fewer than the parts: they take turns
        let other = Net::new(1);
        let mut pair = Team::new(&other, vec![Net::new(4)]);
        for _ in 0..2 {
            for net in [&leader, &alone, &other] {
                net.learned().into_values().for_each(|mut variable| variable.zero_grad());
            }
            let terms = team.backward(&leader, jobs(&x, 3));
            assert!((terms[0] - loss.double_value(&[])).abs() < 1e-6);
            assert_eq!(Team::new(&alone, Vec::new()).backward(&alone, jobs(&x, 3)), terms);
            assert_eq!(pair.backward(&other, jobs(&x, 3)), terms);
            for (name, variable) in leader.learned() {
                let off = (variable.grad() - whole.learned()[&name].grad()).abs().max().double_value(&[]);
                assert!(off < 1e-6, "{name}: {off}");
                for fewer in [&alone, &other] {
                    assert_eq!(variable.grad(), fewer.learned()[&name].grad(), "any number of threads, the same bits");
                }
            }
        }
    }

    #[test]
    fn an_apprentice_learns_for_its_leader() {
        let x = init::normal(1, 1, &[7, 3]);
        let (alone, leader, mut replica) = (Net::new(1), Net::new(1), Net::new(2));
        replica.vs.bfloat16();
        let terms = Team::new(&alone, Vec::new()).backward(&alone, jobs(&x, 3));
        let mut team = Team::apprentice(&leader, replica);
        for _ in 0..2 {
            leader.learned().into_values().for_each(|mut variable| variable.zero_grad());
            let low = jobs(&x, 3).into_iter().map(|(share, x)| (share, x.to_kind(Kind::BFloat16))).collect();
            let found = team.backward(&leader, low);
            assert!((found[0] / terms[0] - 1.0).abs() < 0.02, "{found:?} {terms:?}");
            for (name, variable) in leader.learned() {
                let (want, got) = (alone.learned()[&name].grad(), variable.grad());
                assert_eq!(got.kind(), Kind::Float);
                let off = (&got - &want).norm().double_value(&[]) / want.norm().double_value(&[]);
                assert!(off > 0.0 && off < 0.02, "{name}: {off}");
            }
        }
    }

    #[test]
    fn a_scaled_loss_has_the_gradient_of_the_loss() {
        // in half precision a gradient of 1e-9 is zero
        let x = init::normal(1, 1, &[7, 3]) * 1e-5;
        let norms = [1.0, 65536.0].map(|scale| {
            let (leader, mut replica) = (Net::new(1), Net::new(1));
            leader.learned().into_values().for_each(|mut weight| tch::no_grad(|| _ = weight.g_mul_scalar_(1e-4)));
            replica.vs.half();
            let mut team = Team::apprentice(&leader, replica);
            team.scale_losses(scale);
            leader.learned().into_values().for_each(|mut variable| variable.zero_grad());
            let low = jobs(&x, 2).into_iter().map(|(share, x)| (share, x.to_kind(Kind::Half))).collect();
            team.backward(&leader, low);
            leader.learned()["a.weight"].grad().norm().double_value(&[])
        });
        let alone = Net::new(1);
        alone.learned().into_values().for_each(|mut weight| tch::no_grad(|| _ = weight.g_mul_scalar_(1e-4)));
        Team::new(&alone, Vec::new()).backward(&alone, jobs(&x, 2));
        let want = alone.learned()["a.weight"].grad().norm().double_value(&[]);
        assert!(norms[0] < 0.5 * want && (norms[1] / want - 1.0).abs() < 0.02, "{norms:?} of {want}");
    }

    #[test]
    fn a_part_that_panics_panics_here() {
        let leader = Net::new(1);
        let mut team = Team::new(&leader, vec![Net::new(1)]);
        let bad = vec![(0.5, init::normal(1, 1, &[2, 3])), (0.5, init::normal(1, 1, &[2, 4]))];
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| team.backward(&leader, bad)));
        let text = *panic.expect_err("it panics").downcast::<&str>().expect("a text");
        assert_eq!(text, "a job has three columns");
    }

    #[test]
    fn cuts_are_even_and_complete() {
        assert_eq!(cut(8, 2), [(0, 4, 0.5), (4, 4, 0.5)]);
        assert_eq!(cut(1, 4), [(0, 1, 1.0)]);
        let uneven = cut(7, 3);
        assert_eq!(uneven.iter().map(|part| part.1).sum::<i64>(), 7);
        assert!((uneven.iter().map(|part| part.2).sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
