//! What a head model in training does. Knows no scans but balls.

use super::*;
use crate::init;
use crate::nphm::sample::{Counts, Scan, draw};
use crate::nphm::{Cloud, FitConfig, Frame, Pose, fit_identity};
use tch::Device;

/// A ball with a bump at the front whose height is the identity, squeezed along y by the expression.
fn ball(identity: i64, expression: i64, bump: f32, squeeze: f32) -> Scan {
    let directions = init::normal(17, expression as u64, &[600, 3]);
    let directions = &directions / directions.square().sum_dim_intlist(1, true, None::<Kind>).sqrt();
    let directions: Vec<f32> = directions.reshape([-1]).try_into().unwrap();
    let mut scan = Scan { identity, expression, neutral: squeeze == 0.0, ..Scan::default() };
    let place = |d: [f32; 3], offset: f32, squeeze: f32| {
        let r = 0.4 + bump * (-8.0 * (1.0 - d[2])).exp() + offset;
        [r * d[0], r * d[1] * (1.0 - squeeze), r * d[2]]
    };
    for (i, d) in directions.as_chunks::<3>().0.iter().enumerate() {
        let offset = 0.04 * ((i % 5) as f32 - 2.0);
        scan.surface.push(place(*d, 0.0, squeeze));
        scan.normals.push(*d);
        scan.near.push(place(*d, offset, squeeze));
        scan.near_distance.push(offset);
        scan.far.push(place(*d, 6.0 * offset, squeeze));
        scan.far_distance.push(6.0 * offset);
        scan.posed.push(place(*d, 0.0, squeeze));
        scan.canonical.push(place(*d, 0.0, 0.0));
    }
    scan.anchors = vec![[-0.3, 0.1, 0.2], [0.3, 0.1, 0.2], place([0.0, 0.0, 1.0], 0.0, 0.0), [0.0, -0.3, 0.2]];
    scan
}

fn setting() -> (Vec<Scan>, Trainer) {
    directed(Direction::Backward)
}

fn directed(direction: Direction) -> (Vec<Scan>, Trainer) {
    crate::runtime::prepare(1);
    let scans = vec![ball(0, 0, 0.02, 0.0), ball(0, 1, 0.02, 0.15), ball(1, 2, 0.1, 0.0), ball(1, 3, 0.1, 0.15)];
    let mut config = HeadConfig::mini(1, 2).directed(direction);
    (config.identity.hidden, config.deformation.hidden, config.deformation.layers) = (40, 48, 3);
    let anchors = Tensor::from_slice(scans[0].anchors.as_flattened()).reshape([-1, 3]);
    let mut model = HeadModel::new(&config, &anchors, Device::Cpu).unwrap();
    model.seed(2);
    let rates = Rates { network: 3e-3, z_id: 1e-2, z_ex: 1e-2, ..Rates::default() };
    (scans, Trainer::new(model, 2, 4, LossWeights::default(), rates))
}

fn run(trainer: &mut Trainer, scans: &[Scan], steps: std::ops::Range<u64>) -> Vec<Losses> {
    let counts = Counts { surface: 24, near: 32, far: 16, correspondences: 24 };
    steps.map(|step| trainer.step(&draw(scans, 4, &counts, 1, step), None, 1.0)).collect()
}

#[test]
fn training_and_tracking_work_on_bumpy_balls() {
    let (scans, mut trainer) = setting();
    let losses = run(&mut trainer, &scans, 0..80);
    let mean = |name: &str, range: std::ops::Range<usize>| {
        let of = |l: &Losses| l.terms.iter().find(|t| t.0 == name).unwrap().1;
        losses[range.clone()].iter().map(of).sum::<f64>() / range.len() as f64
    };
    for (name, factor) in [("surface", 0.6), ("near", 0.6), ("normals", 0.6), ("far", 0.3)] {
        let (early, late) = (mean(name, 0..5), mean(name, 75..80));
        assert!(late < factor * early, "{name}: {early} -> {late}");
    }

    // a ball in a pose that is not told exactly
    let truth = Pose { rotation: [0.1, -0.2, 0.05], translation: [0.01, 0.02, -0.03] };
    let start = Pose { rotation: [0.07, -0.22, 0.08], translation: [0.018, 0.016, -0.026] };
    let cloud =
        Cloud { points: scans[2].surface.iter().map(|p| truth.to_world(*p, 1.0)).collect(), ..Cloud::default() };
    let frame = Frame { z_ex: Vec::new(), pose: start, residual: 0.0, kept: 0.0 };
    let config = FitConfig { steps: 60, points: 150, normal_points: 0, ..FitConfig::default() };
    let mut told = Vec::new();
    let fit = fit_identity(&trainer.model, &[(&cloud, frame.clone())], &config, &mut |_, loss| told.push(loss));
    assert!(told[59] < 0.5 * told[0], "{} -> {}", told[0], told[59]);
    let off = |pose: &Pose| (0..3).map(|i| (pose.translation[i] - truth.translation[i]).powi(2)).sum::<f64>().sqrt();
    assert!(off(&fit.frames[0].pose) < 0.6 * off(&start), "{:?}", fit.frames[0]);
    let again = fit_identity(&trainer.model, &[(&cloud, frame)], &config, &mut |_, _| ());
    assert_eq!(fit.frames, again.frames);
}

#[test]
fn a_forward_model_learns_the_field_from_neutral_scans_and_motion_from_all() {
    let (scans, mut trainer) = directed(Direction::Forward);
    let neutral: Vec<Scan> = scans.iter().filter(|scan| scan.neutral).cloned().collect();
    let counts = Counts { surface: 24, near: 32, far: 16, correspondences: 24 };
    let pairs = Counts { surface: 0, near: 0, far: 16, correspondences: 48 };
    let step = |trainer: &mut Trainer, step: u64| {
        trainer.step(&draw(&neutral, 4, &counts, 1, step), Some(&draw(&scans, 4, &pairs, 2, step)), 1.0)
    };
    let losses: Vec<Losses> = (0..250).map(|i| step(&mut trainer, i)).collect();
    let mean = |name: &str, range: std::ops::Range<usize>| {
        let of = |l: &Losses| l.terms.iter().find(|t| t.0 == name).unwrap().1;
        losses[range.clone()].iter().map(of).sum::<f64>() / range.len() as f64
    };
    for (name, factor) in
        [("surface", 0.6), ("near", 0.6), ("normals", 0.6), ("far", 0.3), ("more_correspondence", 0.1)]
    {
        let (early, late) = (mean(name, 0..5), mean(name, 245..250));
        assert!(late < factor * early, "{name}: {early} -> {late}");
    }
    // of points seen with an expression the field is that of the neutral ones, at the code that was learned
    let model = &trainer.model;
    let [z_id, z_ex] = [trainer.z_id.weight.get(1), trainer.z_ex.weight.get(3)].map(|z| z.unsqueeze(0));
    let x = Tensor::from_slice(scans[3].surface.as_flattened()).reshape([1, -1, 3]);
    let off = |z_ex: &Tensor| {
        let field = model.posed_field(&model.person(&z_id, None), z_ex, &x, Far::Learned).sdf;
        field.abs().mean(Kind::Float).double_value(&[])
    };
    let (told, still) = (off(&z_ex), off(&z_ex.zeros_like()));
    assert!(told < 0.6 * still, "{told}, without expression {still}");
    // and a fit finds a code for them by the roots alone
    let still = Pose { rotation: [0.0; 3], translation: [0.0; 3] };
    let world = |p: &[f32; 3]| still.to_world(*p, 1.0);
    let cloud = Cloud { points: scans[3].surface.iter().map(world).collect(), ..Cloud::default() };
    let frame = Frame { z_ex: Vec::new(), pose: still, residual: 0.0, kept: 0.0 };
    let fixed = FitConfig { rate_rotation: 0.0, rate_translation: 0.0, ..FitConfig::frame() };
    let id: Vec<f32> = Vec::try_from(z_id.squeeze()).unwrap();
    let person = crate::nphm::fit::Known { z_id: &id, landmarks: &[] };
    let found = crate::nphm::fit_frame(model, &cloud, &frame, person, &FitConfig { steps: 60, ..fixed });
    let found = off(&Tensor::from_slice(&found.z_ex).unsqueeze(0));
    assert!(found < 0.6 * off(&z_ex.zeros_like()), "{found}");
}

#[test]
fn the_paper_s_own_terms_push_the_field_to_a_distance_without_being_told_any() {
    let weights = |space: f64, eikonal_around: f64| LossWeights {
        near: 0.0,
        far: 0.0,
        space,
        eikonal_around,
        ..LossWeights::default()
    };
    let last = |weights: LossWeights, name: &str| {
        let (scans, mut trainer) = setting();
        trainer.weights = weights;
        let losses = run(&mut trainer, &scans, 0..60);
        let of = |l: &Losses| l.terms.iter().find(|t| t.0 == name).unwrap().1;
        losses[55..].iter().map(of).sum::<f64>() / 5.0
    };
    assert_eq!(last(weights(0.0, 0.0), "eikonal_around"), 0.0, "what has no weight is not computed");
    let (without, with) = (last(weights(0.0, 0.15), "space"), last(weights(1.0, 0.15), "space"));
    assert!(with < 0.8 * without, "the field moves away from 0: {without} -> {with}");
    let (weak, strong) = (last(weights(0.0, 1e-6), "eikonal_around"), last(weights(0.0, 10.0), "eikonal_around"));
    assert!(strong < 0.8 * weak, "slopes become 1: {weak} -> {strong}");
}

#[test]
fn a_fit_looks_for_the_head_under_what_covers_it() {
    let (scans, mut trainer) = setting();
    run(&mut trainer, &scans, 0..80);
    // the back half has hair of up to 12 mm, and every fifth point of it is the skin between
    let mut cloud = Cloud::default();
    for (i, (place, normal)) in scans[2].surface.iter().zip(&scans[2].normals).enumerate() {
        let back = place[2] < 0.0;
        let hair = if back && i % 5 > 0 { 0.012 * (i % 5) as f32 } else { 0.0 };
        cloud.points.push([0, 1, 2].map(|k| (place[k] + hair * normal[k]) / crate::nphm::pose::UNITS_PER_METRE as f32));
        cloud.covering.push(back);
    }
    let frame = Frame { z_ex: Vec::new(), pose: Pose::default(), residual: 0.0, kept: 0.0 };
    let off = |covering: f64| {
        let config = FitConfig { steps: 100, points: 200, normal_points: 0, covering, ..FitConfig::default() };
        let config = FitConfig { rate_rotation: 0.0, rate_translation: 0.0, ..config };
        let fit = fit_identity(&trainer.model, &[(&cloud, frame.clone())], &config, &mut |_, _| ());
        let (z_id, z_ex) = (Tensor::from_slice(&fit.z_id), Tensor::from_slice(&fit.frames[0].z_ex));
        let found = crate::nphm::field_values(&trainer.model, &z_id, &z_ex, scans[2].surface.as_flattened());
        // inside the fitted surface, where it was drawn out
        let mean = found.iter().map(|f| f64::from(-f)).sum::<f64>() / found.len() as f64;
        (mean, fit.frames[0].kept)
    };
    let ((under, kept), (over, _)) = (off(0.1), off(1.0));
    assert!(over > 0.004, "hair as skin draws the surface out: {over}");
    assert!(under.abs() < 0.5 * over, "{under}, with hair as skin {over}");
    assert!(kept > 0.8, "what may be hair does not count as lost: {kept}");
}

/// How far poses are from even motion: root mean square second difference of their places, metres.
fn jitter(frames: &[Frame]) -> f64 {
    let second = |w: &[Frame]| {
        let at = |k: usize, i: usize| w[k].pose.translation[i];
        (0..3).map(|i| (at(2, i) - 2.0 * at(1, i) + at(0, i)).powi(2)).sum::<f64>()
    };
    (frames.windows(3).map(second).sum::<f64>() / (frames.len() - 2) as f64).sqrt()
}

#[test]
fn smoothness_takes_the_jitter_out_of_noisy_clouds_and_held_frames_stay() {
    let (scans, mut trainer) = setting();
    run(&mut trainer, &scans, 0..80);
    // a ball that rolls along evenly; each cloud as a whole lies up to 3 mm from where it was
    let frames = 7;
    let even = |i: usize| Pose { rotation: [0.0, 0.04 * i as f64, 0.0], translation: [0.01 * i as f64, 0.0, 0.0] };
    let noise: Vec<f64> =
        Vec::try_from(init::uniform(3, 1, &[3 * frames as i64], -3e-3, 3e-3).to_kind(Kind::Double)).unwrap();
    let cloud = |i: usize| {
        let noisy = |p: &[f32; 3]| {
            let p = even(i).to_world(*p, 1.0);
            [0, 1, 2].map(|k| p[k] + noise[3 * i + k] as f32)
        };
        Cloud { points: scans[0].surface.iter().map(noisy).collect(), ..Cloud::default() }
    };
    let clouds: Vec<Cloud> = (0..frames).map(cloud).collect();
    let start = |i: usize| Frame {
        z_ex: vec![0.0; trainer.model.config.deformation.d_ex as usize],
        pose: even(i),
        residual: 0.0,
        kept: 0.0,
    };
    let seen: Vec<(&Cloud, Frame)> = clouds.iter().enumerate().map(|(i, cloud)| (cloud, start(i))).collect();
    let z_id: Vec<f32> = trainer.z_id.weight.get(0).try_into().unwrap();
    let person = crate::nphm::fit::Known { z_id: &z_id, landmarks: &[] };
    let fit = |smooth_motion: f64, held: usize| {
        // codes are free: a ball is what they make of a head that has hardly been learned
        let z_ex = FitConfig::default().z_ex;
        let frame = FitConfig { z_ex, ..FitConfig::frame() };
        let config = FitConfig { steps: 40, points: 150, normal_points: 0, smooth_motion, held, ..frame };
        crate::nphm::fit_frames(&trainer.model, &seen, person, &config, &mut |_, _| ())
    };
    let (plain, smooth) = (fit(0.0, 0), fit(10.0, 0));
    assert!(jitter(&plain) > 1.5e-3, "the noise is followed: {}", jitter(&plain));
    assert!(jitter(&smooth) < 0.5 * jitter(&plain), "{} {}", jitter(&smooth), jitter(&plain));
    // and the motion itself is kept: no frame lags behind
    let off = |frames: &[Frame], i: usize| (frames[i].pose.translation[0] - even(i).translation[0]).abs();
    assert!(off(&smooth, 0) < 4e-3 && off(&smooth, frames - 1) < 4e-3, "{smooth:?}");
    let held = fit(10.0, 2);
    assert!((0..2).all(|i| held[i].z_ex == start(i).z_ex && held[i].pose.translation == start(i).pose.translation));
    assert!(held[2].pose.translation != start(2).pose.translation && held[2].z_ex != start(2).z_ex);
}

#[test]
fn one_network_for_the_whole_head_trains_like_an_ensemble() {
    let (scans, ensemble) = setting();
    let config = HeadConfig::npm(&ensemble.model.config);
    let mut model = HeadModel::new(&config, &Tensor::zeros([0, 3], tch::kind::FLOAT_CPU), Device::Cpu).unwrap();
    model.seed(2);
    let mut trainer = Trainer::new(model, 2, 4, LossWeights::default(), ensemble.rates);
    let losses = run(&mut trainer, &scans, 0..80);
    let surface = |l: &Losses| l.terms.iter().find(|t| t.0 == "surface").unwrap().1;
    let [early, late] = [0..5, 75..80].map(|range| losses[range].iter().map(surface).sum::<f64>());
    assert!(late < 0.6 * early, "{early} -> {late}");
    // written and read again, it says the same, also at many points
    let dir = std::env::temp_dir().join(format!("effigy-npm-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    trainer.save(&dir).unwrap();
    let tensors = weights::read(&dir.join("model.safetensors")).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let mut again = HeadModel::new(&config, &tensors["mean_anchors"], Device::Cpu).unwrap();
    again.set_tensors(&tensors, "itself").unwrap();
    let (z_id, z_ex) = (trainer.z_id.weight.get(1), trainer.z_ex.weight.get(3));
    let points: Vec<f32> = init::normal(5, 5, &[9000]).try_into().unwrap();
    let at = |model: &HeadModel| crate::nphm::field_values(model, &z_id, &z_ex, &points);
    assert_eq!(at(&trainer.model), at(&again));
}

#[test]
fn a_trial_gets_better_with_training_and_leaves_no_trace() {
    use crate::nphm::validate::{Trial, validate};
    let (scans, mut tried) = setting();
    let (_, mut alone) = setting();
    // a person between the two, with an expression that nobody has
    let others = [ball(0, 0, 0.06, 0.0), ball(0, 1, 0.06, 0.1)];
    let points = Counts { surface: 24, near: 32, far: 16, correspondences: 24 };
    let trial = Trial { steps: 20, batch: 2, fitted: points.clone(), judged: points, seed: 5, ..Trial::default() };
    let before = validate(&mut tried, &others, &trial);
    run(&mut tried, &scans, 0..40);
    run(&mut alone, &scans, 0..40);
    let after = validate(&mut tried, &others, &trial);
    let surface = |l: &Losses| l.terms.iter().find(|t| t.0 == "surface").unwrap().1;
    assert!(surface(&after) < 0.7 * surface(&before), "{} -> {}", surface(&before), surface(&after));
    // fitted codes explain a person better than codes that were not
    let unfitted = validate(&mut tried, &others, &Trial { steps: 0, ..trial.clone() });
    let total = |l: &Losses| l.total.double_value(&[]);
    assert!(total(&after) < total(&unfitted), "{} {}", total(&after), total(&unfitted));
    assert_eq!(total(&after), total(&validate(&mut tried, &others, &trial)), "it is a function of the weights");
    // and training goes on as if nothing had been tried
    run(&mut tried, &scans, 40..44);
    run(&mut alone, &scans, 40..44);
    let (a, b) = (tried.model.tensors(), alone.model.tensors());
    assert!(a.iter().all(|(name, t)| *t == b[name]));
    assert_eq!((&tried.z_id.weight, &tried.z_ex.weight), (&alone.z_id.weight, &alone.z_ex.weight));
}

#[test]
fn correspondences_of_more_scans_teach_the_expression_network_and_leave_their_codes() {
    let (scans, mut trainer) = setting();
    let mut alone = setting().1;
    let counts = Counts { surface: 16, near: 24, far: 8, correspondences: 16 };
    let pairs = Counts { surface: 0, near: 0, far: 0, correspondences: 64 };
    let error = |trainer: &mut Trainer| {
        let all = draw(&scans, scans.len(), &pairs, 9, 0);
        let [z_id, z_ex] =
            [trainer.z_id.pick(&all.identities), trainer.z_ex.pick(&all.expressions)].map(|picked| picked.codes);
        let points = trainer.model.query(&trainer.model.person(&z_id, None), &z_ex, &all.posed).narrow(2, 0, 3);
        points.mse_loss(&all.canonical, Reduction::Mean).double_value(&[])
    };
    // a step changes the codes of its own scan alone
    let one = draw(&scans, 1, &counts, 1, 0);
    trainer.step(&one, Some(&draw(&scans, scans.len(), &pairs, 2, 0)), 1.0);
    let moved = trainer.z_ex.weight.abs().sum_dim_intlist(1, false, None::<Kind>).gt(0.0);
    let others = moved.sum(Kind::Int64).int64_value(&[]);
    assert_eq!((others, moved.get(one.expressions[0]).int64_value(&[])), (1, 1), "{:?}", one.expressions);
    alone.step(&one, None, 1.0);
    for trainer in [&mut trainer, &mut alone] {
        trainer.rates.z_ex = 0.0;
        let codes = Tensor::from_slice(&[0.0f32, 0.5, 0.0, 0.5]).reshape([4, 1]);
        let d_ex = trainer.z_ex.weight.size()[1];
        trainer.z_ex.weight = codes.constant_pad_nd([0, d_ex - 1]);
    }
    for step in 1..60 {
        let batch = draw(&scans, 1, &counts, 1, step);
        trainer.step(&batch, Some(&draw(&scans, 8, &pairs, 2, step)), 1.0);
        alone.step(&batch, None, 1.0);
    }
    let (with, without) = (error(&mut trainer), error(&mut alone));
    assert!(with < 0.7 * without, "{with}, without {without}");
}

#[test]
fn skin_tells_what_a_surface_that_slides_along_itself_does_not() {
    crate::runtime::prepare(1);
    // a ball that turns about its axis as its expression says: all points stay on it
    let turned = |p: [f32; 3], angle: f32| {
        let (sin, cos) = angle.sin_cos();
        [p[0] * cos + p[2] * sin, p[1], p[2] * cos - p[0] * sin]
    };
    let scan = |expression: i64, angle: f32| {
        let mut scan = ball(0, expression, 0.0, 0.0);
        scan.neutral = angle == 0.0;
        scan.canonical = scan.posed.iter().map(|p| turned(*p, -angle)).collect();
        scan
    };
    let angles = [0.0, -0.3, 0.3];
    let scans: Vec<Scan> = angles.iter().enumerate().map(|(i, a)| scan(i as i64, *a)).collect();
    let mut trainer = setting().1;
    trainer.z_id = CodeTable::new(1, trainer.model.config.identity.d_id(), 0.0, 1.0, 0);
    trainer.z_ex = CodeTable::new(3, trainer.model.config.deformation.d_ex, 0.0, 1.0, 0);
    trainer.z_ex.weight = Tensor::zeros_like(&trainer.z_ex.weight);
    for (i, a) in angles.iter().enumerate() {
        let _ = trainer.z_ex.weight.get(i as i64).get(0).fill_(f64::from(a / 0.3 * 0.9));
    }
    let counts = Counts { surface: 32, near: 48, far: 16, correspondences: 64 };
    let pairs = Counts { surface: 0, near: 0, far: 0, correspondences: 64 };
    for step in 0..150 {
        trainer.step(&draw(&scans, 3, &counts, 2, step), Some(&draw(&scans, 6, &pairs, 1, step)), 1.0);
    }
    let model = &trainer.model;
    let z_id: Vec<f32> = trainer.z_id.weight.get(0).try_into().unwrap();
    let still = Pose { rotation: [0.0; 3], translation: [0.0; 3] };
    let world = |p: &[f32; 3]| still.to_world(*p, 1.0);
    let seen = Cloud { points: scans[2].surface.iter().map(world).collect(), ..Cloud::default() };
    let skin = scans[2].posed.iter().zip(&scans[2].canonical).map(|(p, place)| (world(p), *place)).collect();
    let start = Frame { z_ex: Vec::new(), pose: still, residual: 0.0, kept: 0.0 };
    // the pose stays: that the whole head turned would explain the skin as well
    let config =
        FitConfig { steps: 300, rate_rotation: 0.0, rate_translation: 0.0, skin_limit: 0.2, ..FitConfig::frame() };
    let person = crate::nphm::fit::Known { z_id: &z_id, landmarks: &[] };
    // mean distance of skin from its canonical place
    let slid = |cloud: &Cloud| {
        let z_ex = crate::nphm::fit_frame(model, cloud, &start, person, &config).z_ex;
        let [z_id, z_ex] = [&z_id, &z_ex].map(|z| Tensor::from_slice(z));
        let at = crate::nphm::canonical(model, &z_id, &z_ex, &scans[2].posed);
        let away = at.iter().zip(&scans[2].canonical).map(|(a, b)| (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f32>());
        away.map(f32::sqrt).sum::<f32>() / at.len() as f32
    };
    let (blind, told) = (slid(&seen), slid(&Cloud { skin, ..seen.clone() }));
    assert!(blind > 0.08, "points do not tell: {blind}");
    assert!(told < 0.25 * blind, "skin does: {told} instead of {blind}");
}

#[test]
fn a_resumed_run_is_the_run() {
    let (scans, mut whole) = setting();
    run(&mut whole, &scans, 0..6);
    let dir = std::env::temp_dir().join(format!("effigy-nphm-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (_, mut first) = setting();
    run(&mut first, &scans, 0..3);
    first.save(&dir).unwrap();
    let (_, mut second) = setting();
    second.load(&dir).unwrap();
    assert_eq!(second.steps(), 3);
    run(&mut second, &scans, 3..6);
    let (a, b) = (whole.model.tensors(), second.model.tensors());
    assert!(a.iter().all(|(name, t)| *t == b[name]));
    assert_eq!(whole.z_id.weight, second.z_id.weight);
    assert_eq!(whole.z_ex.weight, second.z_ex.weight);
    std::fs::remove_dir_all(&dir).unwrap();
}
