//! The macros: where a program starts, and how it prints.

/// Makes `run` the program: a function without arguments that returns something that is a
/// [`Termination`](crate::Termination). Once per image.
///
/// ```
/// fn run() -> Result<(), &'static str> {
///     guest_shim::println!("doing what I am for");
///     Ok(())
/// }
///
/// guest_shim::entry!(run);
/// ```
#[cfg(any(test, feature = "desktop"))]
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        fn main() {
            $crate::exit($crate::run($run))
        }
    };
}

/// Makes `run` the program: a function without arguments that returns something that is a
/// [`Termination`](crate::Termination). Once per image.
#[cfg(not(any(test, feature = "desktop")))]
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn slice_main() -> u8 {
            $crate::run($run)
        }
    };
}

/// Prints to the console. Output leaves with each line, when the buffer is full, at the end, and
/// at [`console::flush`](crate::console::flush). Output that nobody can take is dropped.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {
        $crate::console::print(::core::format_args!($($arg)*))
    };
}

/// [`print!`](crate::print), and a line end.
///
/// ```
/// guest_shim::println!("{} of {}", 3, 4);
/// ```
#[macro_export]
macro_rules! println {
    () => {
        $crate::print!("\n")
    };
    ($($arg:tt)*) => {
        $crate::console::print(::core::format_args!("{}\n", ::core::format_args!($($arg)*)))
    };
}

/// Prints a complaint: to the console of a slice, to standard error on a desktop. It leaves at once,
/// line end or not.
#[macro_export]
macro_rules! eprint {
    ($($arg:tt)*) => {
        $crate::console::eprint(::core::format_args!($($arg)*))
    };
}

/// [`eprint!`](crate::eprint), and a line end.
#[macro_export]
macro_rules! eprintln {
    () => {
        $crate::eprint!("\n")
    };
    ($($arg:tt)*) => {
        $crate::console::eprint(::core::format_args!("{}\n", ::core::format_args!($($arg)*)))
    };
}
