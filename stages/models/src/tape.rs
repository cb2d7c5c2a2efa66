//! Gradient checkpointing (Chen et al. 2016): parts of a network keep their inputs instead of all that lies between,
//! and are computed once more when their gradient is due. libtorch's Rust binding has no functions of one's own in its
//! graph, so the chain rule across parts is here: each part's output is a fresh leaf; going back, the part is run again
//! with a graph, and sum(output * gradient of the output) is differentiated, whose gradients are exactly those of the
//! whole. What an input has already gathered from later parts goes into the same sum, last, so that additions happen in
//! the order they would have without checkpointing. The bits are equal. Knows no network.

use std::cell::RefCell;

use tch::{Kind, Tensor};

/// What is run again: from inputs to an output.
type Part<'a> = Box<dyn Fn(&[Tensor]) -> Tensor + 'a>;

enum Entry<'a> {
    /// A leaf that stands for a tensor with a graph of its own, which is kept.
    Entered { source: Tensor, leaf: Tensor },
    /// A part, its inputs, and the leaf that stands for its output.
    Part { inputs: Vec<Tensor>, part: Part<'a>, leaf: Tensor },
}

/// Records one forward pass. `'a`: how long the network lives.
#[derive(Default)]
pub struct Tape<'a> {
    entries: RefCell<Vec<Entry<'a>>>,
}

impl<'a> Tape<'a> {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Brings a tensor in: what parts take as inputs must have come through here or out of [`Tape::run`], unless it
    /// needs no gradient.
    pub fn enter(&self, source: &Tensor) -> Tensor {
        if !source.requires_grad() || source.is_leaf() {
            return source.shallow_clone();
        }
        let leaf = source.detach().set_requires_grad(true);
        let entered = Entry::Entered { source: source.shallow_clone(), leaf: leaf.shallow_clone() };
        self.entries.borrow_mut().push(entered);
        leaf
    }

    /// Runs a part without keeping anything but its inputs. `learns`: whether it has weights that want a gradient. It
    /// has to give the same each time.
    ///
    /// # Panics
    /// If an input has a graph, see [`Tape::enter`].
    pub fn run(&self, learns: bool, inputs: &[&Tensor], part: impl Fn(&[Tensor]) -> Tensor + 'a) -> Tensor {
        assert!(inputs.iter().all(|x| !x.requires_grad() || x.is_leaf()), "an input of a part was not entered");
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.shallow_clone()).collect();
        let output = tch::no_grad(|| part(&inputs));
        if !learns && !inputs.iter().any(Tensor::requires_grad) {
            return output;
        }
        let leaf = output.detach().set_requires_grad(true);
        self.entries.borrow_mut().push(Entry::Part { inputs, part: Box::new(part), leaf: leaf.shallow_clone() });
        leaf
    }

    /// Adds the gradient of `loss` to all leaves it came from, through all that was recorded. Each entry is let go of
    /// once it is done.
    pub fn backward(self, loss: &Tensor) {
        loss.backward();
        let mut entries = self.entries.into_inner();
        while let Some(entry) = entries.pop() {
            match entry {
                Entry::Entered { source, leaf } => {
                    if leaf.grad().defined() {
                        weighted(&source, &leaf.grad()).backward();
                    }
                }
                Entry::Part { inputs, part, leaf } => {
                    let gradient = leaf.grad();
                    if !gradient.defined() {
                        continue;
                    }
                    let fresh: Vec<Tensor> =
                        inputs.iter().map(|x| x.detach().set_requires_grad(x.requires_grad())).collect();
                    let output = part(&fresh);
                    let mut sum = weighted(&output, &gradient);
                    // nodes made last are differentiated first: what was gathered so far comes before this part's share
                    for (x, fresh) in inputs.iter().zip(&fresh).filter(|(x, _)| x.requires_grad() && x.grad().defined())
                    {
                        sum = &sum + weighted(fresh, &x.grad());
                    }
                    drop(output);
                    sum.backward();
                    for (x, fresh) in inputs.iter().zip(&fresh).filter(|(_, fresh)| fresh.requires_grad()) {
                        gather(x, fresh.grad());
                    }
                }
            }
        }
    }
}

/// A scalar whose gradient with respect to `x` is `gradient`.
fn weighted(x: &Tensor, gradient: &Tensor) -> Tensor {
    (x * gradient).sum(Kind::Float)
}

/// Makes `gradient`, which includes what `x` had, the gradient of the leaf `x`.
fn gather(x: &Tensor, gradient: Tensor) {
    if !gradient.defined() {
        return;
    }
    let mut own = x.grad();
    if own.defined() {
        tch::no_grad(|| own.copy_(&gradient));
    } else {
        // there is no other way to give a leaf its first gradient
        weighted(x, &gradient).backward();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;

    /// A chain with a skip connection and an input that all parts share; `cut` runs its parts on a tape.
    fn gradients(cut: bool) -> Vec<Tensor> {
        let leaf = |stream, shape: &[i64]| init::normal(1, stream, shape).set_requires_grad(true);
        let (base, time) = (leaf(0, &[4, 6]), leaf(1, &[4, 6]));
        let weights: Vec<Tensor> = (0..4).map(|i| leaf(2 + i, &[6, 6])).collect();
        let (x, shared) = (base.tanh(), time.sigmoid());
        let tape = Tape::new();
        let run = |weight: &Tensor, inputs: &[&Tensor]| {
            let weight = weight.shallow_clone();
            // the first input is used three times, the last twice
            let part = move |t: &[Tensor]| {
                (t[0].matmul(&weight) * t.last().unwrap() + &t[0]).tanh() * t.last().unwrap() + &t[0]
            };
            match cut {
                true => tape.run(true, inputs, part),
                false => part(&inputs.iter().map(|x| x.shallow_clone()).collect::<Vec<_>>()),
            }
        };
        let enter = |x: &Tensor| if cut { tape.enter(x) } else { x.shallow_clone() };
        let (x, shared) = (enter(&x), enter(&shared));
        let a = run(&weights[0], &[&x, &shared]);
        let b = run(&weights[1], &[&a, &shared]);
        let c = run(&weights[2], &[&b, &shared]);
        let d = enter(&(&c + &a * 0.3));
        let e = run(&weights[3], &[&d, &x, &shared]);
        let loss = e.square().mean(Kind::Float);
        match cut {
            true => tape.backward(&loss),
            false => loss.backward(),
        }
        [base, time].into_iter().chain(weights).map(|x| x.grad()).collect()
    }

    #[test]
    fn gradients_are_the_same_bits() {
        for (cut, whole) in gradients(true).iter().zip(gradients(false)) {
            assert!(whole.abs().max().double_value(&[]) > 0.0);
            assert_eq!(*cut, whole);
        }
    }

    #[test]
    fn what_needs_no_gradient_is_not_recorded() {
        let tape = Tape::new();
        let x = init::normal(1, 1, &[3]);
        let y = tape.run(false, &[&x], |t| t[0].exp());
        assert!(!y.requires_grad() && tape.entries.borrow().is_empty());
    }
}
