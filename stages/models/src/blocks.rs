//! Residual blocks, resampling and the levels of the diffusion U-Net. Variable names are those of diffusers. Does not
//! know how levels are wired (`unet.rs`), nor the auto-encoder, whose blocks lie with it except for [`ResnetBlock`] and
//! what resamples.

use tch::Tensor;
use tch::nn::Path;

use crate::attention::{Attention, SpatialTransformer, TransformerShape};
use crate::layers::{Conv2d, GroupNorm, Linear};
use crate::tape::Tape;

/// Two normed 3x3 convolutions around an optional time embedding, with a residual.
#[derive(Debug)]
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

/// Groups and eps of the norms in a network's residual blocks.
#[derive(Debug, Clone, Copy)]
pub struct Norms {
    /// Number of groups.
    pub groups: i64,
    /// Added to the variance.
    pub eps: f64,
}

impl ResnetBlock {
    /// `time`: width of the time embedding, none in the auto-encoder.
    pub fn new(p: &Path, inputs: i64, outputs: i64, time: Option<i64>, norms: Norms) -> Self {
        Self {
            norm1: GroupNorm::new(&(p / "norm1"), inputs, norms.groups, norms.eps),
            conv1: Conv2d::new(&(p / "conv1"), inputs, outputs, 3, 1, 1),
            time_emb_proj: time.map(|width| Linear::new(&(p / "time_emb_proj"), width, outputs)),
            norm2: GroupNorm::new(&(p / "norm2"), outputs, norms.groups, norms.eps),
            conv2: Conv2d::new(&(p / "conv2"), outputs, outputs, 3, 1, 1),
            shortcut: (inputs != outputs).then(|| Conv2d::new(&(p / "conv_shortcut"), inputs, outputs, 1, 1, 0)),
        }
    }

    /// Whether its weights want a gradient: a network is frozen as a whole.
    fn learns(&self) -> bool {
        self.conv1.weight.requires_grad()
    }

    /// `x` `[B, in, H, W]`, `time` `[B, width]` after its SiLU; gives `[B, out, H, W]`.
    pub fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Tensor {
        let mut h = self.conv1.forward(&self.norm1.forward(x).silu());
        if let (Some(project), Some(time)) = (&self.time_emb_proj, time) {
            h += project.forward(time).unsqueeze(-1).unsqueeze(-1);
        }
        let h = self.conv2.forward(&self.norm2.forward(&h).silu());
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(x) + h,
            None => x + h,
        }
    }
}

/// A 3x3 convolution that halves a map.
#[derive(Debug)]
pub struct Downsample {
    conv: Conv2d,
    /// Zeros at the bottom and right only.
    aside: bool,
}

impl Downsample {
    /// Keeps the number of channels. `padding`: rows and columns of zeros around the map; 0 stands for one of each at
    /// the bottom and right only.
    pub fn new(p: &Path, channels: i64, padding: i64) -> Self {
        Self { conv: Conv2d::new(&(p / "conv"), channels, channels, 3, 2, padding), aside: padding == 0 }
    }

    /// `[B, C, H, W]` -> `[B, C, H/2, W/2]`; of an odd side the larger half, or without padding the smaller one.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if self.aside { self.conv.forward(&x.constant_pad_nd([0, 1, 0, 1])) } else { self.conv.forward(x) }
    }
}

/// Nearest-neighbour enlargement to `size` (height, width) followed by a 3x3 convolution.
#[derive(Debug)]
pub struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    /// Keeps the number of channels.
    pub fn new(p: &Path, channels: i64) -> Self {
        Self { conv: Conv2d::new(&(p / "conv"), channels, channels, 3, 1, 1) }
    }

    /// `[B, C, h, w]` -> `[B, C, size]`.
    pub fn forward(&self, x: &Tensor, size: [i64; 2]) -> Tensor {
        let (_, _, h, w) = x.size4().expect("a feature map is [B, C, H, W]");
        if size == [2 * h, 2 * w] {
            self.doubled(x, h, w)
        } else {
            self.conv.forward(&x.upsample_nearest2d(size, None, None))
        }
    }

    /// The usual case without the enlarged map. A 3x3 window over doubled pixels covers just 2x2 different ones, so
    /// each of the four output phases is a 2x2 convolution with sums of the kernel's rows and columns: 4/9 of the
    /// multiplications.
    fn doubled(&self, x: &Tensor, h: i64, w: i64) -> Tensor {
        let (out, input, _, _) = self.conv.weight.size4().expect("a kernel is [out, in, 3, 3]");
        // Phase 0 sees (row above, this row): kernel rows 0 | 1 + 2. Phase 1 sees (this row, row below): 0 + 1 | 2.
        let merge = Tensor::from_slice(&[1f32, 0., 0., 0., 1., 1., 1., 1., 0., 0., 0., 1.]).view([4, 3]);
        let merge = merge.to_device(x.device()).to_kind(x.kind());
        let rows = self.conv.weight.transpose(2, 3).matmul(&merge.transpose(0, 1));
        let kernels = rows.transpose(2, 3).matmul(&merge.transpose(0, 1)).view([out, input, 2, 2, 2, 2]);
        // [out, in, phase y, tap y, phase x, tap x] -> [phase y, phase x, out, in, tap y, tap x]
        let kernels = kernels.permute([2, 4, 0, 1, 3, 5]).reshape([4 * out, input, 2, 2]);
        let all = x.conv2d(&kernels, None::<Tensor>, 1, 1, 1, 1).unflatten(1, [2, 2, out]);
        let phase = |y: i64, x: i64| all.select(1, y).select(1, x).narrow(2, y, h).narrow(3, x, w);
        let row = |y| Tensor::stack(&[phase(y, 0), phase(y, 1)], -1);
        let doubled = Tensor::stack(&[row(0), row(1)], 3).reshape([-1, out, 2 * h, 2 * w]);
        doubled + self.conv.bias.view([1, -1, 1, 1])
    }
}

/// What every level sees besides the feature map. `'n`: how long the network lives, for the tape.
#[derive(Clone, Copy)]
pub struct Context<'a, 'n> {
    /// Time embedding after its SiLU, `[B, width]`.
    pub time: &'a Tensor,
    /// Text tokens, `[B, M, cross_attention_dim]`.
    pub text: &'a Tensor,
    /// Expression tokens, `[B, K, cross_attention_dim]`, where that path is on.
    pub expression: Option<&'a Tensor>,
    /// Where stages are recorded instead of kept, for gradient checkpointing. Time and expression have entered it.
    pub tape: Option<&'a Tape<'n>>,
}

impl<'n> Context<'_, 'n> {
    /// A tensor that a stage is going to take in, see [`Tape::enter`].
    pub fn enter(&self, x: Tensor) -> Tensor {
        self.tape.map_or_else(|| x.shallow_clone(), |tape| tape.enter(&x))
    }

    /// The same map as another input of later stages: a part of the tape may not take in one leaf twice.
    pub fn apart(&self, x: &Tensor) -> Tensor {
        self.stage(false, &[x], |maps, _| maps[0].shallow_clone())
    }

    /// Runs a stage on feature maps, at this context.
    fn stage(
        &self,
        learns: bool,
        maps: &[&Tensor],
        stage: impl Fn(&[Tensor], Context<'_, 'n>) -> Tensor + 'n,
    ) -> Tensor {
        let Some(tape) = self.tape else {
            return stage(&maps.iter().map(|x| x.shallow_clone()).collect::<Vec<_>>(), *self);
        };
        let (count, text) = (maps.len(), self.text.shallow_clone());
        let inputs: Vec<&Tensor> = maps.iter().copied().chain([self.time]).chain(self.expression).collect();
        tape.run(learns, &inputs, move |all| {
            let c = Context { time: &all[count], text: &text, expression: all.get(count + 1), tape: None };
            stage(&all[..count], c)
        })
    }
}

/// Sizes that the levels of a U-Net share.
#[derive(Debug, Clone, Copy)]
pub struct Shared {
    /// Width of the time embedding.
    pub time: i64,
    /// Norms of the residual blocks.
    pub norms: Norms,
    /// Zeros around maps that are halved, see [`Downsample::new`].
    pub downsample_padding: i64,
}

/// Expression attentions of one level: for each transformer, one per block.
pub type LevelAttentions = Vec<Vec<Attention>>;

/// One level of the contracting half: residual blocks, each followed by a transformer where the level has attention,
/// then a strided convolution unless it is the last level.
#[derive(Debug)]
pub struct DownBlock {
    resnets: Vec<ResnetBlock>,
    /// Empty on levels without attention.
    pub attentions: Vec<SpatialTransformer>,
    downsampler: Option<Downsample>,
}

impl DownBlock {
    /// `inside` is none on levels without attention.
    pub fn new(
        p: &Path,
        io: [i64; 2],
        layers: i64,
        inside: Option<TransformerShape>,
        downsample: bool,
        s: Shared,
    ) -> Self {
        let [inputs, outputs] = io;
        let resnet = |i| {
            let from = if i == 0 { inputs } else { outputs };
            ResnetBlock::new(&(p / "resnets" / i), from, outputs, Some(s.time), s.norms)
        };
        Self {
            resnets: (0..layers).map(resnet).collect(),
            attentions: transformers(p, layers, inside),
            downsampler: downsample.then(|| Downsample::new(&(p / "downsamplers" / 0), outputs, s.downsample_padding)),
        }
    }

    /// Returns the level's output and appends every stage's output to `skips`.
    pub fn forward<'n>(
        &'n self,
        x: &Tensor,
        c: Context<'_, 'n>,
        extra: Option<&'n LevelAttentions>,
        skips: &mut Vec<Tensor>,
    ) -> Tensor {
        let mut x = x.shallow_clone();
        for (i, resnet) in self.resnets.iter().enumerate() {
            let learns = resnet.learns() || extra.is_some_and(|level| level.get(i).is_some());
            x = c.stage(learns, &[&x], move |maps, c| {
                attend(&self.attentions, extra, i, resnet.forward(&maps[0], Some(c.time)), c)
            });
            skips.push(x.shallow_clone());
        }
        if let Some(down) = &self.downsampler {
            x = c.stage(down.conv.weight.requires_grad(), &[&x], |maps, _| down.forward(&maps[0]));
            skips.push(x.shallow_clone());
        }
        x
    }
}

/// The level between the halves: a residual block, and with attention a transformer and another residual block.
#[derive(Debug)]
pub struct MidBlock {
    resnet: ResnetBlock,
    attention: Option<(SpatialTransformer, ResnetBlock)>,
    /// What the residual blocks put out is divided by this.
    scale: f64,
}

impl MidBlock {
    /// Keeps the number of channels. `inside` is none without attention. What each residual block puts out is divided
    /// by `scale`.
    pub fn new(p: &Path, channels: i64, inside: Option<TransformerShape>, s: Shared, scale: f64) -> Self {
        let resnet = |i| ResnetBlock::new(&(p / "resnets" / i), channels, channels, Some(s.time), s.norms);
        let attention = |shape| (SpatialTransformer::new(&(p / "attentions" / 0), shape), resnet(1));
        Self { resnet: resnet(0), attention: inside.map(attention), scale }
    }

    /// Same shape as the input. This level has no expression attention.
    pub fn forward<'n>(&'n self, x: &Tensor, c: Context<'_, 'n>) -> Tensor {
        c.stage(self.resnet.learns(), &[x], |maps, c| {
            let x = self.scaled(self.resnet.forward(&maps[0], Some(c.time)));
            let Some((transformer, last)) = &self.attention else { return x };
            self.scaled(last.forward(&transformer.forward(&x, c.text, None), Some(c.time)))
        })
    }

    fn scaled(&self, x: Tensor) -> Tensor {
        if self.scale == 1.0 { x } else { x / self.scale }
    }
}

/// One level of the expanding half: like [`DownBlock`], but every stage first takes in a skip connection.
#[derive(Debug)]
pub struct UpBlock {
    resnets: Vec<ResnetBlock>,
    /// Empty on levels without attention.
    pub attentions: Vec<SpatialTransformer>,
    upsampler: Option<Upsample>,
}

impl UpBlock {
    /// `channels`: of the level below, of this level, and of the skips that come from the level above. `inside` is none
    /// on levels without attention.
    pub fn new(
        p: &Path,
        channels: [i64; 3],
        layers: i64,
        inside: Option<TransformerShape>,
        upsample: bool,
        s: Shared,
    ) -> Self {
        let [below, outputs, above] = channels;
        let resnet = |i| {
            let from = if i == 0 { below } else { outputs };
            let skip = if i == layers - 1 { above } else { outputs };
            ResnetBlock::new(&(p / "resnets" / i), from + skip, outputs, Some(s.time), s.norms)
        };
        Self {
            resnets: (0..layers).map(resnet).collect(),
            attentions: transformers(p, layers, inside),
            upsampler: upsample.then(|| Upsample::new(&(p / "upsamplers" / 0), outputs)),
        }
    }

    /// Takes its skips from the end of `skips`; enlarges to the size of the next level's skips.
    pub fn forward<'n>(
        &'n self,
        x: &Tensor,
        c: Context<'_, 'n>,
        extra: Option<&'n LevelAttentions>,
        skips: &mut Vec<Tensor>,
    ) -> Tensor {
        let mut x = x.shallow_clone();
        for (i, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("as many skips as stages that take one");
            let learns = resnet.learns() || extra.is_some_and(|level| level.get(i).is_some());
            x = c.stage(learns, &[&x, &skip], move |maps, c| {
                attend(&self.attentions, extra, i, resnet.forward(&Tensor::cat(maps, 1), Some(c.time)), c)
            });
        }
        match (&self.upsampler, skips.last()) {
            (Some(upsampler), Some(next)) => {
                let size = next.size();
                let learns = upsampler.conv.weight.requires_grad();
                c.stage(learns, &[&x], move |maps, _| upsampler.forward(&maps[0], [size[2], size[3]]))
            }
            _ => x,
        }
    }
}

fn transformers(p: &Path, layers: i64, inside: Option<TransformerShape>) -> Vec<SpatialTransformer> {
    let Some(shape) = inside else { return Vec::new() };
    (0..layers).map(|i| SpatialTransformer::new(&(p / "attentions" / i), shape)).collect()
}

/// Stage `i`'s transformer, where the level has one.
fn attend(
    list: &[SpatialTransformer],
    extra: Option<&LevelAttentions>,
    i: usize,
    x: Tensor,
    c: Context<'_, '_>,
) -> Tensor {
    let Some(transformer) = list.get(i) else { return x };
    let expression = extra.zip(c.expression).map(|(level, tokens)| (level[i].as_slice(), tokens));
    transformer.forward(&x, c.text, expression)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;
    use tch::{Device, Kind};

    const SHARED: Shared = Shared { time: 5, norms: Norms { groups: 4, eps: 1e-5 }, downsample_padding: 1 };

    fn far(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    fn context<'a, 'n>(time: &'a Tensor, text: &'a Tensor) -> Context<'a, 'n> {
        Context { time, text, expression: None, tape: None }
    }

    #[test]
    fn without_padding_zeros_are_at_the_bottom_and_right() {
        let x = init::normal(4, 0, &[2, 3, 6, 5]);
        for (padding, [top, left, height, width]) in [(0, [0, 0, 7, 6]), (1, [1, 1, 8, 7])] {
            let (_vs, down) = init::build(Device::Cpu, 4, |p| Downsample::new(p, 3, padding));
            let wide = Tensor::zeros([2, 3, height, width], (Kind::Float, Device::Cpu));
            wide.narrow(2, top, 6).narrow(3, left, 5).copy_(&x);
            let wanted = wide.conv2d(&down.conv.weight, Some(&down.conv.bias), 2, 0, 1, 1);
            let found = tch::no_grad(|| down.forward(&x));
            assert_eq!(found.size(), [2, 3, 3, 2 + padding]);
            assert!(far(&found, &wanted) < 1e-6);
        }
    }

    #[test]
    fn the_middles_residual_blocks_are_divided_and_its_transformer_is_not() {
        let shape = TransformerShape {
            channels: 8,
            width: 8,
            context: 6,
            heads: 2,
            depth: 1,
            groups: 4,
            linear: true,
            only_cross: false,
        };
        let x = init::normal(5, 0, &[1, 8, 4, 3]);
        let (time, text) = (init::normal(5, 1, &[1, 5]), init::normal(5, 2, &[1, 3, 6]));
        for inside in [None, Some(shape)] {
            let (_vs, mid) = init::build(Device::Cpu, 5, |p| MidBlock::new(p, 8, inside, SHARED, 2.0));
            tch::no_grad(|| {
                let mut wanted = mid.resnet.forward(&x, Some(&time)) / 2.0;
                if let Some((transformer, last)) = &mid.attention {
                    wanted = last.forward(&transformer.forward(&wanted, &text, None), Some(&time)) / 2.0;
                }
                assert!(far(&mid.forward(&x, context(&time, &text)), &wanted) < 1e-6);
                let (_vs, whole) = init::build(Device::Cpu, 5, |p| MidBlock::new(p, 8, inside, SHARED, 1.0));
                assert!(far(&whole.forward(&x, context(&time, &text)), &wanted) > 0.1);
            });
        }
    }

    #[test]
    fn doubling_by_phases_is_doubling_and_convolving() {
        let (_vs, up) = init::build(Device::Cpu, 4, |p| Upsample::new(p, 3));
        let x = init::normal(4, 0, &[2, 3, 5, 4]).set_requires_grad(true);
        let plain = up.conv.forward(&x.upsample_nearest2d([10, 8], None, None));
        let fast = up.forward(&x, [10, 8]);
        assert!((&fast - &plain).abs().max().double_value(&[]) < 1e-6);
        let gradient =
            |y: Tensor| Tensor::run_backward(&[y.square().sum(Kind::Float)], &[&x, &up.conv.weight], false, false);
        for (a, b) in gradient(fast).iter().zip(gradient(plain)) {
            assert!((a - b).abs().max().double_value(&[]) < 1e-4);
        }
    }
}
