//! A monitor that does as the arguments of its guest say, instead of running one: for tests of what
//! launches monitors. It is put in the place of the real one, in the same jail.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use vmm::control::proto::{Notice, tell_ended, write_frame};
use vmm::exit::{Exit, ExitRecord};
use vmm::given::{Given, Role};
use vmm::inherited;
use vmm::launch::TIE;
use vmm::spec::SliverSpec;

fn main() -> ExitCode {
    let tie = UnixStream::from(inherited::take(TIE).expect("the tie is there"));
    // Whatever else is open was inherited.
    let inherited = (TIE + 1..64).filter(|number| inherited::take(*number).is_ok());
    let inherited: Vec<String> = inherited.map(|number| number.to_string()).collect();
    let (mut given, _) = Given::receive(&tie).expect("handed in");
    let mut text = Vec::new();
    let mut spec = given.file(Role::Spec).expect("handed in");
    spec.read_to_end(&mut text).expect("read");
    let spec = SliverSpec::parse(&text).expect("a spec");
    let mut console = given.file(Role::Console).expect("handed in");
    for deed in spec.args() {
        match deed.split_once('=').unwrap_or((deed, "")) {
            ("started", _) => {
                let control = "/nobody/listens/here".to_owned();
                write_frame(&tie, &Notice::Started { control }).expect("sent");
            }
            ("ended", _) => {
                let exit = Exit::exited(7);
                let record = ExitRecord::not_started("made-up", "local_made_up", exit);
                tell_ended(Some(&tie), &record);
            }
            ("nonsense", _) => (&tie).write_all(b"\xff\xff\xff\xffnonsense").expect("sent"),
            ("print", text) => writeln!(console, "{text}").expect("printed"),
            ("inherited", _) => write!(console, "{}", inherited.join(" ")).expect("printed"),
            ("sleep", _) => std::thread::sleep(Duration::from_secs(60)),
            ("abort", _) => std::process::abort(),
            ("exit", code) => return ExitCode::from(code.parse::<u8>().expect("a code")),
            (other, _) => panic!("what is {other}?"),
        }
    }
    ExitCode::SUCCESS
}
