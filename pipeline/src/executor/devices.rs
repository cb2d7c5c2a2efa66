//! The GPUs that tasks may have, by the names under which CUDA knows them. A task that asks for some gets its own: two
//! that run side by side never meet on one. Knows neither drivers nor what is done with them.

/// The variable by which a process is told which GPUs are its own.
pub const VARIABLE: &str = "CUDA_VISIBLE_DEVICES";

/// Which GPUs there are for all tasks together.
#[derive(Clone, Debug)]
pub enum Gpus {
    /// Somebody else gives them out, a cluster perhaps: tasks are told nothing, and have what they ask for.
    Elsewhere,
    /// These.
    These(Vec<String>),
}

/// The GPUs that nobody has at the moment.
#[derive(Debug)]
pub struct Devices {
    all: Option<Vec<String>>,
    /// Places in `all`, in order.
    free: Vec<usize>,
}

impl Devices {
    /// All of these are free.
    pub fn new(gpus: Gpus) -> Devices {
        match gpus {
            Gpus::Elsewhere => Devices { all: None, free: Vec::new() },
            Gpus::These(names) => Devices { free: (0..names.len()).collect(), all: Some(names) },
        }
    }

    /// How many a task gets that asks for so many: one that asks for more than there are has all.
    pub fn share(&self, asked: u64) -> usize {
        self.all.as_ref().map_or(0, |all| all.len().min(asked as usize))
    }

    /// Whether so many are free.
    pub fn has(&self, count: usize) -> bool {
        self.free.len() >= count
    }

    /// Whether all of these are.
    pub fn are_free(&self, devices: &[usize]) -> bool {
        devices.iter().all(|device| self.free.contains(device))
    }

    /// The first of those that are free, which are not taken by that.
    pub fn first(&self, count: usize) -> Vec<usize> {
        self.free.iter().take(count).copied().collect()
    }

    /// Nobody else gets them.
    pub fn take(&mut self, devices: &[usize]) {
        self.free.retain(|device| !devices.contains(device));
    }

    /// They are free again.
    pub fn give_back(&mut self, devices: &[usize]) {
        self.free.extend(devices);
        self.free.sort_unstable();
    }

    /// What a process with these is told; nothing if it has none.
    pub fn told(&self, devices: &[usize]) -> Option<String> {
        let all = self.all.as_ref().filter(|_| !devices.is_empty())?;
        Some(devices.iter().map(|device| all[*device].as_str()).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_what_somebody_has() {
        let mut devices = Devices::new(Gpus::These(["3", "GPU-a", "7"].map(String::from).to_vec()));
        let one = devices.first(2);
        devices.take(&one);
        assert_eq!((devices.told(&one).unwrap().as_str(), devices.has(2)), ("3,GPU-a", false));
        let two = devices.first(1);
        devices.take(&two);
        assert_eq!(devices.told(&two).unwrap(), "7");
        devices.give_back(&one);
        assert!(devices.are_free(&one) && !devices.are_free(&two));
        assert_eq!((devices.share(9), devices.told(&[])), (3, None));
        let elsewhere = Devices::new(Gpus::Elsewhere);
        assert_eq!((elsewhere.share(9), elsewhere.told(&elsewhere.first(0))), (0, None));
    }
}
