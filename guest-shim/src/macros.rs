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
///
/// Each vCPU of a slice has a stack of 256 KiB. A program that needs more, or has many vCPUs and
/// little memory, says so: any multiple of 4 KiB from 16 KiB to 64 MiB. A desktop gives what it
/// always gives.
///
/// ```
/// # fn run() {}
/// guest_shim::entry!(run, stack = 1 << 20);
/// ```
#[cfg(any(test, feature = "desktop"))]
#[macro_export]
macro_rules! entry {
    ($run:path $(, stack = $bytes:expr)?) => {
        $(const _: $crate::Note = $crate::Note::with_stack($bytes);)?
        fn main() {
            $crate::exit($crate::run($run))
        }
    };
}

/// Makes `run` the program: a function without arguments that returns something that is a
/// [`Termination`](crate::Termination). Once per image. With `stack = BYTES`, each vCPU has a stack
/// of that size: a multiple of 4 KiB from 16 KiB to 64 MiB.
#[cfg(not(any(test, feature = "desktop")))]
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        $crate::entry!(@ $run, $crate::Note::usual());
    };
    ($run:path, stack = $bytes:expr) => {
        $crate::entry!(@ $run, $crate::Note::with_stack($bytes));
    };
    (@ $run:path, $note:expr) => {
        const _: () = {
            #[used]
            #[unsafe(link_section = ".note.slice")]
            static NOTE: $crate::Note = $note;

            #[unsafe(no_mangle)]
            extern "Rust" fn slice_main() -> u8 {
                $crate::run($run)
            }
        };
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
