//! Where networks run, and settings of the process for running them on the CPU. Knows no network.

use tch::Device;

/// The first CUDA device if this libtorch has one, else the CPU.
pub fn device() -> Device {
    Device::cuda_if_available()
}

/// Sets the number of threads of the calling thread's operations, and tells the C allocator to keep freed memory.
///
/// By default glibc gives blocks above 128 kB back to the system when they are freed, so every activation of every step
/// is mapped and cleared again: 20 to 25 % of the time of a convolution at 64 pixels. Call it once, early.
pub fn prepare(threads: usize) {
    tch::set_num_threads(threads.max(1) as i32);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    keep_freed_memory();
}

/// Makes the calling thread run its operations alone. New threads begin with as many as were
/// set last, and as many as the machine has cores if none were.
pub fn one_thread() {
    tch::set_num_threads(1);
}

/// Whether operations of this thread are remembered for gradients: not within [`tch::no_grad`].
pub fn keeps_gradients() -> bool {
    // SAFETY: sets a flag of this thread, and sets it back.
    unsafe {
        let before = torch_sys::at_grad_set_enabled(0);
        torch_sys::at_grad_set_enabled(before);
        before != 0
    }
}

/// Ends the process that has done its work, without the farewell of its libraries: libtorch strikes its operators off
/// its lists one by one, which takes as long as a quarter of its start. What was not flushed is lost.
pub fn leave() -> ! {
    #[cfg(unix)]
    {
        unsafe extern "C" {
            fn _exit(status: std::ffi::c_int) -> !;
        }
        // SAFETY: _exit takes any status and touches no memory of ours.
        unsafe { _exit(0) }
    }
    #[cfg(not(unix))]
    std::process::exit(0)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_memory() {
    use std::ffi::c_int;
    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_MMAP_THRESHOLD: c_int = -3;
    // SAFETY: mallopt only sets parameters of the allocator and accepts any value; it returns 0 for those it refuses.
    unsafe {
        mallopt(M_MMAP_THRESHOLD, 512 << 20);
        mallopt(M_TRIM_THRESHOLD, c_int::MAX);
    }
}
