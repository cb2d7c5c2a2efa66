//! What is read, what is written, what is refused.

use super::*;

/// Three levels, each unlike the others, and halves unlike each other.
fn uneven() -> UNetConfig {
    UNetConfig {
        block_out_channels: vec![8, 12, 16],
        layers_per_block: PerLevel::Each(vec![1, 2, 1]),
        attention_levels: vec![false, true, true],
        up_attention_levels: Some(vec![true, false, true]),
        middle: Middle::Residual,
        heads: vec![2, 3, 4],
        cross_attention_dim: 10,
        transformer_layers: PerLevel::Each(vec![0, 2, 1]),
        up_transformer_layers: Some(PerLevel::Each(vec![1, 0, 3])),
        only_cross_attention: PerLevel::Each(vec![false, true, false]),
        norm_num_groups: 4,
        freq_shift: 0.5,
        ..UNetConfig::default()
    }
}

fn refused(value: &Value) -> String {
    UNetConfig::from_json(value, "unet/config.json").unwrap_err().to_string()
}

#[test]
fn configurations_survive_the_trip_through_json() {
    let flat = UNetConfig {
        middle: Middle::None,
        up_transformer_layers: Some(PerLevel::Same(2)),
        only_cross_attention: PerLevel::Same(true),
        ..UNetConfig::small()
    };
    let rare = UNetConfig {
        time_embedding_dim: Some(20),
        downsample_padding: 0,
        mid_block_scale_factor: 1.5,
        ..UNetConfig::small()
    };
    for config in [UNetConfig::default(), UNetConfig::small(), uneven(), flat, rare] {
        assert_eq!(UNetConfig::from_json(&config.to_json(), "here").unwrap(), config);
    }
    // what is the same on all levels is written as one number, as it always was
    let value = UNetConfig::small().to_json();
    assert_eq!((&value["layers_per_block"], &value["transformer_layers_per_block"]), (&json!(1), &json!(1)));
    assert_eq!((&value["freq_shift"], value.get("only_cross_attention")), (&json!(0), None));
    let rare = ["time_embedding_dim", "downsample_padding", "mid_block_scale_factor"];
    assert_eq!(rare.map(|key| value.get(key)), [None; 3]);
    let mut value = UNetConfig::default().to_json();
    value["class_embed_type"] = json!("timestep");
    assert!(refused(&value).contains("class_embed_type"), "{}", refused(&value));
}

#[test]
fn lists_are_read_as_diffusers_means_them() {
    let value = json!({
        "act_fn": "swish",
        "attention_head_dim": [3, 3, 4],
        "block_out_channels": [8, 12, 16],
        "cross_attention_dim": [99, 10, 10],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "layers_per_block": [1, 2, 3],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "norm_num_groups": 4,
        "only_cross_attention": [false, false, false],
        "transformer_layers_per_block": [1, 2, 3],
        // coarsest first
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    });
    let config = UNetConfig::from_json(&value, "here").unwrap();
    let level = |channels, layers, inside: Option<(i64, i64)>| {
        let transformers =
            inside.map(|(heads, depth)| Transformers { width: channels, heads, depth, only_cross: false });
        Level { channels, layers, transformers }
    };
    let down = [level(8, 1, None), level(12, 2, Some((3, 2))), level(16, 3, None)];
    assert_eq!([0, 1, 2].map(|i| config.down(i)), down);
    let up = [level(8, 2, None), level(12, 3, Some((3, 2))), level(16, 4, Some((4, 3)))];
    assert_eq!([0, 1, 2].map(|i| config.up(i)), up);
    assert_eq!(config.middle_transformer().map(|inside| (inside.heads, inside.depth)), Some((4, 3)));
    assert_eq!((config.cross_attention_dim, config.expression_attentions()), (10, 2 * 2 + 3 * 2 + 4 * 3));

    // where the way up has a list of its own, it is coarsest first
    let mut reverse = value.clone();
    reverse["reverse_transformer_layers_per_block"] = json!([5, 4, 1]);
    let config = UNetConfig::from_json(&reverse, "here").unwrap();
    let depths = |level: Level| level.transformers.map(|inside| inside.depth);
    assert_eq!([0, 1, 2].map(|i| depths(config.up(i))), [None, Some(4), Some(5)]);
    assert_eq!(depths(config.down(1)), Some(2));
    reverse["reverse_transformer_layers_per_block"] = json!([3, 2, 1]);
    assert_eq!(UNetConfig::from_json(&reverse, "here").unwrap().up_transformer_layers, None);

    for (name, middle) in [(json!("UNetMidBlock2D"), Middle::Residual), (Value::Null, Middle::None)] {
        let mut value = value.clone();
        value["mid_block_type"] = name;
        let config = UNetConfig::from_json(&value, "here").unwrap();
        assert_eq!((config.middle, config.middle_transformer()), (middle, None));
    }
}

#[test]
fn the_time_is_as_wide_as_it_is_told_to_be() {
    let mut value = UNetConfig::small().to_json();
    for usual in [Value::Null, json!(0), json!(4 * 32)] {
        value["time_embedding_dim"] = usual;
        let config = UNetConfig::from_json(&value, "here").unwrap();
        assert_eq!((&config, config.time_width()), (&UNetConfig::small(), 128));
    }
    value["time_embedding_dim"] = json!(20);
    assert_eq!(UNetConfig::from_json(&value, "here").unwrap().time_width(), 20);
    for whole in [json!(2), json!(2.0)] {
        value["mid_block_scale_factor"] = whole;
        assert_eq!(UNetConfig::from_json(&value, "here").unwrap().mid_block_scale_factor, 2.0);
    }
}

#[test]
fn levels_without_attention_do_not_look_at_heads() {
    let mut value = json!({
        "attention_head_dim": 3,
        "block_out_channels": [8, 12],
        "cross_attention_dim": 8,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "norm_num_groups": 4,
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    });
    let config = UNetConfig::from_json(&value, "here").unwrap();
    assert_eq!(config.down(1).transformers.map(|inside| inside.width), Some(12));
    value["attention_head_dim"] = json!([0, 3]);
    assert!(UNetConfig::from_json(&value, "here").is_ok());
    // heads share evenly what they can of a level
    value["attention_head_dim"] = json!(5);
    let config = UNetConfig::from_json(&value, "here").unwrap();
    assert_eq!(config.down(1).transformers.map(|inside| inside.width), Some(10));
    for heads in [json!([3, 0]), json!(13), json!(-3)] {
        value["attention_head_dim"] = heads;
        assert!(refused(&value).contains("12 channels cannot be cut into"), "{}", refused(&value));
    }
    // the middle belongs to the last level
    value["attention_head_dim"] = json!(0);
    value["down_block_types"] = json!(["DownBlock2D", "DownBlock2D"]);
    value["up_block_types"] = json!(["UpBlock2D", "UpBlock2D"]);
    assert!(refused(&value).contains("12 channels cannot be cut into 0 heads"), "{}", refused(&value));
    value["mid_block_type"] = json!("UNetMidBlock2D");
    assert!(UNetConfig::from_json(&value, "here").is_ok());
}

#[test]
fn what_cannot_be_is_told_with_file_and_field() {
    let wrong = |key: &str, bad: Value, part: &str| {
        let mut value = UNetConfig::small().to_json();
        value[key] = bad;
        let error = refused(&value);
        assert!(error.starts_with("unet/config.json: "), "{error}");
        assert!(error.contains(key) && error.contains(part) && error.contains("hint:"), "{key}: {error}");
    };
    wrong("norm_num_groups", json!(0), "at least 1, not 0");
    wrong("norm_num_groups", json!(-8), "at least 1, not -8");
    wrong("norm_num_groups", json!(5), "32 channels cannot be cut into 5");
    wrong("block_out_channels", json!([32, 64, 0]), "at least 1, not 0");
    wrong("in_channels", json!(0), "at least 1, not 0");
    wrong("layers_per_block", json!([1, 1]), "2 values, and there are 3 levels");
    wrong("layers_per_block", json!([1, 0, 1]), "at least 1, not 0");
    wrong("layers_per_block", json!("two"), "one value or a list");
    wrong("transformer_layers_per_block", json!([[1], [1], [1]]), "one value or a list");
    wrong("transformer_layers_per_block", json!(-1), "at least 0, not -1");
    wrong("reverse_transformer_layers_per_block", json!([1, 1]), "2 values");
    wrong("only_cross_attention", json!([true]), "1 values");
    wrong("cross_attention_dim", json!([64, 32, 64]), "only one width");
    wrong("cross_attention_dim", json!(0), "at least 1");
    wrong("num_attention_heads", json!(2), "not implemented");
    wrong("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn"), "UNetMidBlock2D\"");
    wrong("up_block_types", json!(["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]), "AttnUpBlock2D");
    wrong("act_fn", json!("mish"), "\"silu\" or \"swish\"");
    wrong("time_embedding_dim", json!(-4), "at least 1, not -4");
    wrong("time_embedding_dim", json!("wide"), "a whole number");
    wrong("downsample_padding", json!(2), "only 0 or 1");
    wrong("downsample_padding", Value::Null, "a whole number");
    wrong("mid_block_scale_factor", json!(0), "must not be 0");

    let mut value = UNetConfig::small().to_json();
    for key in ["down_block_types", "up_block_types", "attention_head_dim", "block_out_channels"] {
        let kept = value[key].take();
        value[key] = json!(&kept.as_array().unwrap()[1..]);
        assert!(refused(&value).contains("one of each per level"), "{key}: {}", refused(&value));
        value[key] = json!([]);
        assert!(refused(&value).contains("one of each per level"), "{key}: {}", refused(&value));
        value[key] = kept;
    }
    let lengths = UNetConfig { layers_per_block: PerLevel::Each(vec![1, 2]), ..UNetConfig::small() };
    assert!(lengths.check("here").unwrap_err().to_string().contains("layers_per_block"));
}
