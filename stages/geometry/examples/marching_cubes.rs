//! Marching cubes on a file of numbers: `marching_cubes FILE SIDE ROUNDS` extracts the zero level of SIDE^3
//! little-endian f32, x-major, so many times and prints the counts of vertices and faces. `marching_cubes make
//! sphere|torus SIDE FILE` writes the grids that the comparison with others uses. Whoever calls measures: the
//! difference of two counts of rounds is what the rounds cost.

use geometry::marching_cubes::marching_cubes;

/// A ball, and a torus with bumps, in the cube from -1 to 1.
fn field(name: &str, [x, y, z]: [f32; 3]) -> Option<f32> {
    match name {
        "sphere" => Some((x * x + y * y + z * z).sqrt() - 0.7),
        "torus" => {
            let bumps = 0.03 * (20.0 * x).sin() * (20.0 * y).sin() * (20.0 * z).sin();
            Some((((x * x + y * y).sqrt() - 0.55).powi(2) + z * z).sqrt() - 0.22 + bumps)
        }
        _ => None,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", name, side, file] => {
            let side: usize = side.parse()?;
            let at = |i: usize| -1.0 + 2.0 * i as f32 / (side - 1) as f32;
            let mut bytes = Vec::with_capacity(4 * side.pow(3));
            for p in 0..side.pow(3) {
                let value =
                    field(name, [p / side / side, p / side % side, p % side].map(at)).ok_or("sphere or torus")?;
                bytes.extend(value.to_le_bytes());
            }
            std::fs::write(file, bytes)?;
        }
        [file, side, rounds] => {
            let (side, rounds): (usize, usize) = (side.parse()?, rounds.parse()?);
            let bytes = std::fs::read(file)?;
            let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            for _ in 0..rounds {
                let mesh = marching_cubes(&values, [side; 3], 0.0);
                println!("{} {}", mesh.positions.len(), mesh.faces.len());
            }
        }
        _ => return Err("usage: marching_cubes FILE SIDE ROUNDS, or make sphere|torus SIDE FILE".into()),
    }
    Ok(())
}
