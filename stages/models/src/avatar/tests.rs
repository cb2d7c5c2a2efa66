//! An avatar in miniature: what it starts as, what learns, every switch.

use super::*;
use crate::ldm;
use crate::loss_scale::LossScale;
use crate::team::{Team, cut};

/// Two-level networks on 4x4 latents: everything there is, in miniature.
fn tiny(config: AvatarConfig) -> AvatarConfig {
    let unet = UNetConfig {
        block_out_channels: vec![8, 16],
        attention_levels: vec![true, false],
        heads: vec![2, 2],
        cross_attention_dim: 8,
        norm_num_groups: 4,
        ..UNetConfig::small()
    };
    let maps =
        config.maps.map(|maps| FeatureMapConfig { resolution: 8, plane_channels: 2, ambient_channels: 2, ..maps });
    AvatarConfig { unet, maps, encoder_channels: vec![4, 8, 8], ..config }
}

fn gbuffer(frames: i64) -> GBuffer {
    let random = |stream, tail: &[i64]| init::uniform(9, stream, &[&[frames, 16, 16], tail].concat(), 0.0, 1.0);
    GBuffer {
        depth: random(0, &[]),
        canonical: random(1, &[3]),
        normals: random(2, &[3]),
        ambient: Some(random(3, &[2])),
        mask: random(4, &[]).gt(0.3),
        whose: Vec::new(),
    }
}

pub(super) fn avatar(config: AvatarConfig) -> (Avatar, Tensors, Tensor) {
    crate::runtime::prepare(1);
    let config = tiny(config);
    let (vs, _) = init::build(Device::Cpu, 77, |p| UNet::new(p, &config.unet));
    let (prior, text) = (weights::sorted(&vs), ldm::null_prompt(3, 8, 5));
    let avatar = Avatar::new(&config, &prior, &text, 1, Device::Cpu).unwrap();
    (avatar, prior, text)
}

pub(super) fn batch(avatar: &Avatar, step: u64) -> Batch {
    let (latents, codes) = (init::normal(2, 0, &[2, 4, 4, 4]), init::normal(2, 1, &[2, 6]));
    let draw = Draw::new(&avatar.schedule, &latents.size(), 3, step);
    Batch { latents, gbuffer: gbuffer(2), codes, draw, mouth: None, eyes: None, colors: None }
}

pub(super) fn train(avatar: &Avatar, optimiser: &mut AdamW, from: u64, to: u64) -> f64 {
    let mut last = f64::NAN;
    for step in from..to {
        let loss = avatar.training_loss(&batch(avatar, step));
        optimiser.zero_grad();
        loss.sum.backward();
        optimiser.step(1.0);
        last = loss.terms[0];
    }
    last
}

#[test]
fn a_fresh_avatar_is_its_prior() {
    let (avatar, prior, text) = avatar(AvatarConfig::small(6));
    let (vs, unet) = init::build(Device::Cpu, 0, |p| UNet::new(p, &avatar.config.unet));
    weights::load_tensors(&vs, &prior, "prior").unwrap();
    let (x, t) = (init::normal(0, 0, &[2, 4, 4, 4]), times(700, 2, Device::Cpu));
    tch::no_grad(|| {
        let prepared = avatar.condition(&gbuffer(2), &init::normal(0, 1, &[2, 6]));
        let plain = unet.forward(&x, &t, &text.expand([2, -1, -1], false), Extras::default());
        assert_eq!(avatar.predict(&x, &t, &prepared), plain);
    });
    assert_eq!(avatar.config.condition_channels(), 9 + 8);
    assert_eq!(AvatarConfig::default().condition_channels(), 73);
}

#[test]
fn what_is_frozen_stays_and_what_learns_moves() {
    let (avatar, prior, _) = avatar(AvatarConfig::small(6));
    let before: Tensors = avatar.learned().into_iter().map(|(n, t)| (n, t.detach().copy())).collect();
    train(&avatar, &mut avatar.optimiser(), 0, 3);
    for (name, value) in weights::sorted(&avatar.unet_vs) {
        assert_eq!(value, prior[&name].detach(), "{name}");
    }
    let learned = avatar.learned();
    // Three steps: the zero convolutions have moved, so what lies behind them hears a gradient as well.
    let still: Vec<&String> = before.iter().filter(|(n, t)| learned[*n].detach() == **t).map(|(n, _)| n).collect();
    assert!(still.is_empty(), "{still:?} did not move");
    assert_eq!(avatar.frozen().len(), prior.len());
}

#[test]
fn queries_may_be_kept_and_half_of_the_network_left_without_expression() {
    let of = |halves, keep_queries| {
        let expression = Some(ExpressionConfig { halves, keep_queries, ..ExpressionConfig::new(6) });
        avatar(AvatarConfig { expression, ..AvatarConfig::small(6) })
    };
    let (kept, prior, _) = of(ExpressionHalves::Both, true);
    let queries: Vec<String> = kept.frozen().into_iter().filter(|name| name.contains("attn_expression")).collect();
    assert_eq!(queries.len() as i64, kept.config.unet.expression_attentions());
    train(&kept, &mut kept.optimiser(), 0, 3);
    let variables = kept.expression_vs.variables();
    for name in &queries {
        assert!(
            name.ends_with("attn_expression.to_q.weight")
                && !kept.learned().contains_key(&format!("expression.{name}"))
        );
        assert_eq!(variables[name], prior[&name.replace("attn_expression", "attn2")].detach(), "{name}");
    }
    // the code still counts
    let x = init::normal(0, 0, &[1, 4, 4, 4]);
    let say = |avatar: &Avatar, code: f64| {
        let codes = Tensor::full([1, 6], code, (Kind::Float, Device::Cpu));
        tch::no_grad(|| avatar.predict(&x, &times(700, 1, Device::Cpu), &avatar.condition(&gbuffer(1), &codes)))
    };
    assert_ne!(say(&kept, 0.0), say(&kept, 1.0));
    for (halves, there, not) in [
        (ExpressionHalves::Encoder, "down_blocks", "up_blocks"),
        (ExpressionHalves::Decoder, "up_blocks", "down_blocks"),
    ] {
        let (avatar, ..) = of(halves, false);
        train(&avatar, &mut avatar.optimiser(), 0, 3);
        let learned = avatar.learned();
        let count = |half: &str| learned.keys().filter(|name| name.starts_with(&format!("expression.{half}"))).count();
        assert!(count(there) > 0 && count(not) == 0, "{halves:?}");
        assert_ne!(say(&avatar, 0.0), say(&avatar, 1.0), "{halves:?}");
    }
}

#[test]
fn a_frame_does_not_depend_on_its_neighbours() {
    let (avatar, ..) = avatar(AvatarConfig::small(6));
    train(&avatar, &mut avatar.optimiser(), 0, 3);
    let (g, codes) = (gbuffer(3), init::normal(4, 0, &[3, 6]));
    for sampler in [Sampler::Ddpm, Sampler::Ddim { eta: 0.0 }, Sampler::Ddim { eta: 1.0 }, Sampler::UniPc] {
        let all = avatar.sample(&g, &codes, sampler, 4, 11).unwrap();
        for i in 0..3 {
            let alone = avatar.sample(&g.select(i), &codes.narrow(0, i, 1), sampler, 4, 11).unwrap();
            assert_eq!(alone, all.narrow(0, i, 1), "{sampler:?}");
        }
        assert_ne!(all.get(0), all.get(1));
        assert_ne!(avatar.sample(&g, &codes, sampler, 4, 12).unwrap(), all);
        let together = avatar.sample_together(&g, &codes, sampler, 4, 11).unwrap();
        assert!((together - &all).abs().max().double_value(&[]) < 1e-4, "{sampler:?}");
    }
}

#[test]
fn training_can_stop_and_go_on() {
    let (whole, ..) = avatar(AvatarConfig::small(6));
    train(&whole, &mut whole.optimiser(), 0, 20);
    let dir = std::env::temp_dir().join(format!("effigy-avatar-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (file, state) = (dir.join("w.safetensors"), dir.join("s.safetensors"));
    let (first, ..) = avatar(AvatarConfig::small(6));
    let mut optimiser = first.optimiser();
    train(&first, &mut optimiser, 0, 10);
    weights::write(&file, &first.learned(), &Default::default(), weights::Precision::Keep).unwrap();
    optimiser.save(&state).unwrap();

    let (second, ..) = avatar(AvatarConfig::small(6));
    second.restore(&weights::read(&file).unwrap(), "file").unwrap();
    let mut optimiser = second.optimiser();
    optimiser.load(&state).unwrap();
    train(&second, &mut optimiser, 10, 20);
    for (name, value) in whole.learned() {
        assert_eq!(second.learned()[&name], value, "{name}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_team_trains_as_one_would() {
    let train = |helpers: usize| {
        let (leader, ..) = avatar(AvatarConfig::small(6));
        let mut optimiser = leader.optimiser();
        let mut team = Team::new(&leader, (0..helpers).map(|_| avatar(AvatarConfig::small(6)).0).collect());
        for step in 0..4 {
            let batch = batch(&leader, step);
            let jobs = cut(2, 2).into_iter().map(|(from, n, share)| (share, batch.narrow(from, n)));
            optimiser.zero_grad();
            team.backward(&leader, jobs.collect());
            optimiser.step(1.0);
        }
        leader.learned()
    };
    let (alone, together) = (train(0), train(1));
    for (name, value) in alone {
        assert_eq!(value, together[&name], "{name}");
    }
}

#[test]
fn every_variant_trains_and_samples() {
    let small = AvatarConfig { lr_networks: 1e-2, ..AvatarConfig::small(6) };
    let variants = [
        AvatarConfig { maps: None, ..small.clone() },
        AvatarConfig {
            maps: small.maps.map(|maps| FeatureMapConfig { layout: Layout::SphericalUv, ..maps }),
            ..small.clone()
        },
        AvatarConfig { ambient: false, ..small.clone() },
        AvatarConfig { expression: None, ..small.clone() },
        AvatarConfig { prior: Prior::Tuned, ..small.clone() },
        AvatarConfig { prior: Prior::None, ..small.clone() },
        AvatarConfig { prior: Prior::None, objective: Objective::Direct, ..small },
    ];
    for config in variants {
        let what = format!("{config:?}");
        let (avatar, ..) = avatar(config);
        let mut optimiser = avatar.optimiser();
        let first = train(&avatar, &mut optimiser, 0, 1);
        // The same draw again, after some steps on the same two samples.
        train(&avatar, &mut optimiser, 1, 13);
        let last = train(&avatar, &mut optimiser, 0, 1);
        assert!(last < 0.97 * first, "{what}: loss went from {first} to {last}");
        let out = avatar.sample(&gbuffer(1), &init::normal(4, 0, &[1, 6]), Sampler::Ddpm, 3, 0).unwrap();
        assert!(out.isfinite().all().int64_value(&[]) == 1 && out.size() == [1, 4, 4, 4], "{what}");
    }
}

#[test]
fn the_other_terms_are_what_their_sentences_say() {
    let small = AvatarConfig::small(6);
    let maps = small.maps.map(|maps| FeatureMapConfig { plane_channels: 3, ..maps });
    let terms = LossTerms { mouth: 2.0, eyes: 3.0, colors: 0.5, min_snr: None };
    assert_eq!(terms.names(), ["loss", "error", "mouth", "eyes", "colors"]);
    assert_eq!(LossTerms::default().names(), ["loss"]);
    let unet = tiny(small.clone()).unet;
    let (vs, _) = init::build(Device::Cpu, 77, |p| UNet::new(p, &unet));
    let build = |terms| {
        let mut config = AvatarConfig { terms, ..tiny(small.clone()) };
        config.maps = maps.map(|maps| FeatureMapConfig { resolution: 8, ambient_channels: 2, ..maps });
        Avatar::new(&config, &weights::sorted(&vs), &ldm::null_prompt(3, 8, 5), 1, Device::Cpu).unwrap()
    };
    let (plain, avatar) = (build(LossTerms::default()), build(terms));
    let mut batch = batch(&avatar, 0);
    let error = plain.training_loss(&batch).terms[0];
    let mut mouth = Tensor::zeros([2, 4, 4], (tch::Kind::Float, Device::Cpu));
    mouth = mouth.fill_(1.0);
    let eyes = Tensor::zeros([2, 4, 4], (tch::Kind::Float, Device::Cpu));
    let _ = eyes.narrow(1, 0, 1).fill_(1.0);
    (batch.mouth, batch.eyes) = (Some(mouth), Some(eyes));
    batch.colors = Some(init::uniform(5, 5, &[2, 3, 16, 16], -1.0, 1.0));
    let all = avatar.training_loss(&batch);
    assert_eq!((all.terms[1], all.terms[2]), (error, error), "a mouth that is everywhere is all of the error");
    assert!(all.terms[3] > 0.0 && all.terms[3] < all.terms[2], "eyes are a part of it");
    let want = error + 2.0 * all.terms[2] + 3.0 * all.terms[3] + 0.5 * all.terms[4];
    assert!((all.terms[0] - want).abs() < 1e-5 && all.terms[4] > 0.0);
    assert_eq!(all.sum.double_value(&[]), all.terms[0]);
    batch.mouth = Some(Tensor::zeros([2, 4, 4], (tch::Kind::Float, Device::Cpu)));
    assert_eq!(avatar.training_loss(&batch).terms[2], 0.0);

    // planes that are the picture have no error: look-ups at one place of a plane of one colour
    let only = AvatarConfig { terms: LossTerms { colors: 1.0, ..LossTerms::default() }, ..avatar.config.clone() };
    let avatar = Avatar::new(&only, &weights::sorted(&vs), &ldm::null_prompt(3, 8, 5), 1, Device::Cpu).unwrap();
    let _ = tch::no_grad(|| avatar.maps[0].planes.shallow_clone().fill_(0.25));
    batch.colors = Some(Tensor::full([2, 3, 16, 16], 0.25, (tch::Kind::Float, Device::Cpu)));
    assert!(avatar.training_loss(&batch).terms[2] < 1e-10);
}

#[test]
fn min_snr_weighs_late_times_as_they_are_and_early_ones_less() {
    let (plain, ..) = avatar(AvatarConfig::small(6));
    let limited =
        AvatarConfig { terms: LossTerms { min_snr: Some(5.0), ..LossTerms::default() }, ..AvatarConfig::small(6) };
    let (limited, ..) = avatar(limited);
    let mut one = batch(&plain, 0).narrow(0, 1);
    for t in [20i64, 700] {
        one.draw.t = vec![t];
        let signal = plain.schedule.alphas_cumprod[t as usize];
        let ratio = signal / (1.0 - signal);
        let weight = ratio.min(5.0) / (ratio + 1.0);
        let [all, weighted] = [&plain, &limited].map(|avatar| avatar.training_loss(&one).terms[0]);
        assert!((weighted - weight * all).abs() < 1e-6 * all, "{t}: {weighted} is not {weight} of {all}");
    }
}

#[test]
fn participants_share_all_but_their_maps() {
    let (both, ..) = avatar(AvatarConfig { participants: 2, ..AvatarConfig::small(6) });
    let (one, ..) = avatar(AvatarConfig::small(6));
    let names: Vec<String> = both.learned().into_keys().filter(|name| name.starts_with("maps.")).collect();
    assert_eq!(names, ["maps.1.ambient", "maps.1.planes", "maps.ambient", "maps.planes"]);
    assert_eq!(both.learned()["maps.planes"], one.learned()["maps.planes"]);
    assert_ne!(both.learned()["maps.1.planes"], one.learned()["maps.planes"]);

    // a team whose members see one participant each trains as one that sees both
    let train = |helpers: usize| {
        let build = || avatar(AvatarConfig { participants: 2, ..AvatarConfig::small(6) }).0;
        let leader = build();
        let mut optimiser = leader.optimiser();
        let mut team = Team::new(&leader, (0..helpers).map(|_| build()).collect());
        for step in 0..3 {
            let mut batch = batch(&leader, step);
            batch.gbuffer.whose = vec![1, (step % 2) as usize];
            let jobs = cut(2, 2).into_iter().map(|(from, n, share)| (share, batch.narrow(from, n)));
            optimiser.zero_grad();
            team.backward(&leader, jobs.collect());
            optimiser.step(1.0);
        }
        leader.learned()
    };
    let (alone, together) = (train(0), train(1));
    for (name, value) in alone {
        assert_eq!(value, together[&name], "{name}");
        assert_ne!(value, both.learned()[&name], "{name} has moved");
    }
}

#[test]
fn half_as_many_bits_train_weights_that_stay_in_f32() {
    let run = |low: Option<Kind>| {
        let (leader, ..) = avatar(AvatarConfig { lr_networks: 1e-2, ..AvatarConfig::small(6) });
        let mut optimiser = leader.optimiser();
        let mut team = match low {
            Some(kind) => Team::apprentice(&leader, avatar(AvatarConfig::small(6)).0.computing_in(kind)),
            None => Team::new(&leader, Vec::new()),
        };
        if low == Some(Kind::Half) {
            team.scale_losses(LossScale::default().factor());
        }
        let mut losses = Vec::new();
        for step in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0] {
            optimiser.zero_grad();
            losses.push(team.backward(&leader, vec![(1.0, batch(&leader, step))])[0]);
            assert!(optimiser.step(1.0).iter().all(|norm| norm.is_finite()));
        }
        assert!(leader.learned().values().all(|weight| weight.kind() == Kind::Float));
        losses
    };
    let full = run(None);
    for (kind, tolerance) in [(Kind::BFloat16, 0.02), (Kind::Half, 0.005)] {
        let low = run(Some(kind));
        // such steps are large, and what differs a little in the first differs more in the last
        let near = |(i, (full, low)): (usize, (&f64, &f64))| {
            (low / full - 1.0).abs() < if i < 8 { tolerance } else { tolerance.max(0.02) }
        };
        assert!(full.iter().zip(&low).enumerate().all(near), "{full:?} {low:?}");
        assert!(full != low && low[13] < 0.97 * low[0], "{low:?}");
    }
}

#[test]
fn a_condition_encoder_without_widths_is_refused() {
    let config = AvatarConfig { encoder_channels: Vec::new(), ..AvatarConfig::small(6) };
    let error = Avatar::new(&config, &Tensors::new(), &ldm::null_prompt(3, 64, 5), 1, Device::Cpu).unwrap_err();
    assert!(error.to_string().contains("`encoder_channels`: conditioning_embedding_out_channels"), "{error}");
}
