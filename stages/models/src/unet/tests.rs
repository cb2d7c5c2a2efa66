//! Shapes and names of the network, with and without what not all of them have.

use std::collections::BTreeSet;

use super::*;
use crate::config::PerLevel;
use crate::{init, weights};

/// Three levels, each unlike the others, and halves unlike each other.
fn uneven(middle: Middle) -> UNetConfig {
    UNetConfig {
        block_out_channels: vec![8, 12, 16],
        layers_per_block: PerLevel::Each(vec![1, 2, 1]),
        attention_levels: vec![false, true, true],
        up_attention_levels: Some(vec![true, false, true]),
        middle,
        heads: vec![3, 4, 4],
        cross_attention_dim: 10,
        transformer_layers: PerLevel::Each(vec![0, 2, 1]),
        up_transformer_layers: Some(PerLevel::Each(vec![1, 0, 2])),
        only_cross_attention: PerLevel::Each(vec![false, true, false]),
        norm_num_groups: 4,
        ..UNetConfig::default()
    }
}

#[test]
fn as_many_expression_attentions_as_published() {
    assert_eq!(UNetConfig::default().expression_attentions(), 15);
    for (config, count) in [(UNetConfig::small(), 6), (uneven(Middle::None), 2 * 2 + 1 + 2 + 2 * 2)] {
        assert_eq!(config.expression_attentions(), count);
        let (vs, attentions) =
            init::build(Device::Cpu, 0, |p| ExpressionAttentions::new(p, &config, ExpressionHalves::Both));
        assert_eq!(attentions.len() as i64, count);
        // each stands beside one that looks at the text and is as wide
        let (unet_vs, unet) = init::build(Device::Cpu, 0, |p| UNet::new(p, &config));
        attentions.start_from(&unet, true);
        let theirs = unet_vs.variables();
        for (name, own) in vs.variables().iter().filter(|(name, _)| name.ends_with("to_k.weight")) {
            assert_eq!(*own, theirs[&name.replace("attn_expression", "attn2")], "{name}");
        }
        let sample = init::normal(1, 0, &[2, 4, 9, 6]);
        let text = init::normal(1, 1, &[2, 3, config.cross_attention_dim]);
        let t = times(5, 2, Device::Cpu);
        let extras = Extras { expression: Some((&attentions, &text)), ..Extras::default() };
        let (with, without) = tch::no_grad(|| {
            (unet.forward(&sample, &t, &text, extras), unet.forward(&sample, &t, &text, Extras::default()))
        });
        assert!((with - without).abs().max().double_value(&[]) < 1e-5, "they are silent at first");
    }
}

#[test]
fn odd_sizes_come_back_in_their_own_size() {
    let (vs, unet) = init::build(Device::Cpu, 1, |p| UNet::new(p, &UNetConfig::small()));
    let text = init::normal(1, 1, &[2, 3, 64]);
    let out = tch::no_grad(|| {
        unet.forward(&init::normal(1, 0, &[2, 4, 10, 7]), &times(5, 2, vs.device()), &text, Extras::default())
    });
    assert_eq!(out.size(), [2, 4, 10, 7]);
    assert!(weights::count(&vs) < 2_500_000);
}

#[test]
fn levels_unlike_each_other_have_the_names_and_shapes_of_diffusers() {
    let (vs, _) = init::build(Device::Cpu, 1, |p| UNet::new(p, &uneven(Middle::CrossAttention)));
    let variables = vs.variables();
    let below = |stem: &str| -> BTreeSet<String> {
        let rest = variables.keys().filter_map(|name| name.strip_prefix(stem));
        rest.map(|rest| rest.split('.').next().unwrap_or_default().to_owned()).collect()
    };
    let count = |stem: &str| below(stem).len();
    assert_eq!([0, 1, 2].map(|i| count(&format!("down_blocks.{i}.resnets."))), [1, 2, 1]);
    assert_eq!([0, 1, 2].map(|i| count(&format!("down_blocks.{i}.attentions."))), [0, 2, 1]);
    assert_eq!([0, 1, 2].map(|i| count(&format!("up_blocks.{i}.resnets."))), [2, 3, 2]);
    assert_eq!([0, 1, 2].map(|i| count(&format!("up_blocks.{i}.attentions."))), [2, 0, 2]);
    assert_eq!(count("down_blocks.1.attentions.0.transformer_blocks."), 2);
    assert_eq!(count("up_blocks.0.attentions.0.transformer_blocks."), 2);
    assert_eq!(count("up_blocks.2.attentions.0.transformer_blocks."), 1);
    assert_eq!(count("mid_block.attentions.0.transformer_blocks."), 1);
    let inputs = |name: &str| variables[name].size()[1];
    // the last block of a level takes in what its finer neighbour put out
    let up = |level: usize, block: usize| inputs(&format!("up_blocks.{level}.resnets.{block}.conv1.weight"));
    assert_eq!([up(0, 0), up(0, 1)], [16 + 16, 16 + 12]);
    assert_eq!([up(1, 0), up(1, 1), up(1, 2)], [16 + 12, 12 + 12, 12 + 8]);
    assert_eq!([up(2, 0), up(2, 1)], [12 + 8, 8 + 8]);
    // three heads share six of eight channels; the second level never attends to itself
    assert_eq!(variables["up_blocks.2.attentions.0.proj_in.weight"].size(), [6, 8]);
    assert_eq!(inputs("down_blocks.1.attentions.1.transformer_blocks.1.attn1.to_k.weight"), 10);
    assert_eq!(inputs("down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_k.weight"), 16);
}

#[test]
fn the_middle_is_what_the_configuration_says() {
    let (sample, text) = (init::normal(1, 0, &[1, 4, 9, 6]), init::normal(1, 1, &[1, 3, 10]));
    let wants = [(Middle::CrossAttention, vec!["attentions", "resnets"], 2), (Middle::Residual, vec!["resnets"], 1)];
    for (middle, parts, resnets) in wants.into_iter().chain([(Middle::None, Vec::new(), 0)]) {
        let (vs, unet) = init::build(Device::Cpu, 1, |p| UNet::new(p, &uneven(middle)));
        let names: Vec<String> = vs.variables().into_keys().filter(|name| name.starts_with("mid_block.")).collect();
        let found: BTreeSet<&str> = names.iter().filter_map(|name| name.split('.').nth(1)).collect();
        assert_eq!(Vec::from_iter(found), parts);
        assert_eq!(names.iter().filter(|name| name.ends_with("conv1.weight")).count(), resnets);
        let seen = std::cell::Cell::new(false);
        let see = |name: &str, _: &Tensor| seen.set(seen.get() || name == "mid_block");
        let extras = Extras { probe: Probe(Some(&see)), ..Extras::default() };
        let out = tch::no_grad(|| unet.forward(&sample, &times(5, 1, Device::Cpu), &text, extras));
        assert_eq!((out.size(), seen.get()), (vec![1, 4, 9, 6], middle != Middle::None));
    }
}

#[test]
fn the_time_is_as_wide_as_the_configuration_says() {
    let config = UNetConfig { time_embedding_dim: Some(20), ..uneven(Middle::Residual) };
    let (vs, unet) = init::build(Device::Cpu, 1, |p| UNet::new(p, &config));
    let variables = vs.variables();
    let size = |name: &str| variables[name].size();
    assert_eq!(size("time_embedding.linear_1.weight"), [20, 8]);
    assert_eq!(size("time_embedding.linear_2.weight"), [20, 20]);
    assert_eq!(size("mid_block.resnets.0.time_emb_proj.weight"), [16, 20]);
    assert_eq!(size("up_blocks.2.resnets.1.time_emb_proj.weight"), [8, 20]);
    let (sample, text) = (init::normal(1, 0, &[1, 4, 9, 6]), init::normal(1, 1, &[1, 3, 10]));
    let at = |t: i64| tch::no_grad(|| unet.forward(&sample, &times(t, 1, Device::Cpu), &text, Extras::default()));
    assert!((at(5) - at(900)).abs().max().double_value(&[]) > 0.0);
}

#[test]
fn maps_are_halved_with_zeros_where_the_configuration_says() {
    let (sample, text) = (init::normal(1, 0, &[1, 4, 9, 6]), init::normal(1, 1, &[1, 3, 10]));
    for (downsample_padding, sides) in [(1, [[5, 3], [3, 2], [3, 2]]), (0, [[4, 3], [2, 1], [2, 1]])] {
        let config = UNetConfig { downsample_padding, ..uneven(Middle::CrossAttention) };
        let (_vs, unet) = init::build(Device::Cpu, 1, |p| UNet::new(p, &config));
        let seen = std::cell::RefCell::new(Vec::new());
        let see = |name: &str, x: &Tensor| {
            if name.starts_with("down_blocks.") {
                seen.borrow_mut().push([x.size()[2], x.size()[3]]);
            }
        };
        let extras = Extras { probe: Probe(Some(&see)), ..Extras::default() };
        let out = tch::no_grad(|| unet.forward(&sample, &times(5, 1, Device::Cpu), &text, extras));
        assert_eq!((out.size(), seen.into_inner()), (vec![1, 4, 9, 6], sides.to_vec()));
    }
}

#[test]
fn the_middles_scale_is_the_configurations() {
    let (sample, text) = (init::normal(1, 0, &[1, 4, 9, 6]), init::normal(1, 1, &[1, 3, 10]));
    let out = |mid_block_scale_factor: f64, middle: Middle| {
        let config = UNetConfig { mid_block_scale_factor, ..uneven(middle) };
        let (_vs, unet) = init::build(Device::Cpu, 1, |p| UNet::new(p, &config));
        tch::no_grad(|| unet.forward(&sample, &times(5, 1, Device::Cpu), &text, Extras::default()))
    };
    for middle in [Middle::CrossAttention, Middle::Residual] {
        assert!((out(4.0, middle) - out(1.0, middle)).abs().max().double_value(&[]) > 1e-4);
    }
    assert_eq!(out(4.0, Middle::None), out(1.0, Middle::None));
}

#[test]
fn without_a_middle_checkpointing_changes_no_bit_of_any_gradient() {
    crate::runtime::prepare(1);
    let (vs, unet) = init::build(Device::Cpu, 1, |p| UNet::new(p, &uneven(Middle::None)));
    let (sample, text) = (init::normal(1, 0, &[1, 4, 9, 6]), init::normal(1, 1, &[1, 3, 10]));
    let gradients = |cut: bool| {
        let tape = Tape::new();
        let extras = Extras { tape: cut.then_some(&tape), ..Extras::default() };
        let loss = unet.forward(&sample, &times(5, 1, Device::Cpu), &text, extras).square().mean(tch::Kind::Float);
        match cut {
            true => tape.backward(&loss),
            false => loss.backward(),
        }
        let mut gradients = weights::Tensors::new();
        for (name, variable) in weights::sorted(&vs) {
            gradients.insert(name, variable.grad().copy());
            variable.shallow_clone().zero_grad();
        }
        gradients
    };
    let (plain, cut) = (gradients(false), gradients(true));
    for (name, gradient) in plain {
        assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name}");
        assert_eq!(cut[&name], gradient, "{name}");
    }
}
