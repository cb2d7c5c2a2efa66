//! A star-shaped stand-in for head, neck and shoulders that keeps growing hair outside.
//!
//! Knows only the largest distance of the surface from the middle of the head in each direction.

use glam::Vec3;

const COLUMNS: usize = 96;
const ROWS: usize = 48;

/// Radius over direction.
pub struct Shell {
    /// The point that directions are counted from, world metres.
    pub centre: Vec3,
    radius: Vec<f32>,
}

impl Shell {
    /// The shell of a surface around the world origin.
    pub fn new(positions: &[Vec3], triangles: &[[u32; 3]]) -> Self {
        let mut shell = Self { centre: Vec3::new(0.0, 0.005, -0.008), radius: vec![0.0; COLUMNS * ROWS] };
        for t in triangles {
            let c = t.map(|v| positions[v as usize] - shell.centre);
            for (a, b) in [(0.333, 0.333), (0.05, 0.05), (0.9, 0.05), (0.05, 0.9), (0.5, 0.5), (0.0, 0.5), (0.5, 0.0)] {
                let p = c[0] * (1.0 - a - b) + c[1] * a + c[2] * b;
                let (x, y) = cell(p);
                let r = &mut shell.radius[y as usize * COLUMNS + x as usize];
                *r = r.max(p.length());
            }
        }
        // Fill directions that no sample met, then smooth a little.
        for _ in 0..12 {
            shell.average(|own, around| if own > 0.0 { own } else { around });
        }
        shell.average(|own, around| 0.5 * own + 0.5 * around);
        shell
    }

    fn average(&mut self, mix: impl Fn(f32, f32) -> f32) {
        let before = self.radius.clone();
        for y in 0..ROWS {
            for x in 0..COLUMNS {
                let (mut sum, mut n) = (0.0, 0.0);
                for (dx, dy) in [(COLUMNS - 1, 1), (0, 0), (1, 1), (0, 2), (0, 1)] {
                    let (nx, ny) = ((x + dx) % COLUMNS, (y + dy).clamp(1, ROWS) - 1);
                    let r = before[ny * COLUMNS + nx];
                    if r > 0.0 {
                        sum += r;
                        n += 1.0;
                    }
                }
                let own = before[y * COLUMNS + x];
                self.radius[y * COLUMNS + x] = mix(own, if n > 0.0 { sum / n } else { 0.0 });
            }
        }
    }

    /// The radius of the surface in the direction of `p` from the centre, metres, bilinear.
    pub fn radius(&self, p: Vec3) -> f32 {
        let (x, y) = cell(p - self.centre);
        let (x, y) = (x - 0.5, (y - 0.5).clamp(0.0, ROWS as f32 - 1.001));
        let (fx, fy) = (x - x.floor(), y - y.floor());
        let column = |dx: i32| (x.floor() as i32 + dx).rem_euclid(COLUMNS as i32) as usize;
        let (y0, c0, c1) = (y as usize, column(0), column(1));
        let at = |c: usize, r: usize| self.radius[r.min(ROWS - 1) * COLUMNS + c];
        let top = at(c0, y0) * (1.0 - fx) + at(c1, y0) * fx;
        let bottom = at(c0, y0 + 1) * (1.0 - fx) + at(c1, y0 + 1) * fx;
        top * (1.0 - fy) + bottom * fy
    }
}

/// Continuous grid coordinates of a direction.
fn cell(d: Vec3) -> (f32, f32) {
    let u = d.normalize_or_zero();
    let x = (u.x.atan2(u.z) / std::f32::consts::TAU + 0.5) * COLUMNS as f32;
    let y = (u.y.clamp(-1.0, 1.0).acos() / std::f32::consts::PI) * ROWS as f32;
    (x.min(COLUMNS as f32 - 0.001), y.min(ROWS as f32 - 0.001))
}
