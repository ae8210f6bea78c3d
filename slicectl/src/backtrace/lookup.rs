//! Reads an image's debug information and symbol table. Runs where it can do no harm: see the
//! parent module.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use addr2line::gimli::{self, EndianSlice, LittleEndian, SectionId};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol};

use super::{Call, Frame};
use crate::text::shortened;

/// The largest image whose symbols are looked at.
const MAX_IMAGE: u64 = 256 << 20;

/// The most functions told for one address: inlining has no other bound.
const MAX_INLINED: usize = 32;

/// The most characters of a name that are told.
const MAX_NAME: usize = 400;

/// How far behind its start a symbol without a size may reach.
const MAX_SYMBOL: u64 = 1 << 20;

type Reader<'data> = EndianSlice<'data, LittleEndian>;

/// The frames at `addresses`; files below `here` are named relative to it.
pub(super) fn frames(image: &Path, addresses: &[u64], here: Option<&Path>) -> Vec<Frame> {
    let bare = || {
        addresses.iter().map(|&address| Frame {
            address,
            calls: Vec::new(),
        })
    };
    let Some(data) = read(image) else {
        return bare().collect();
    };
    let Ok(elf) = ElfFile64::<object::LittleEndian>::parse(&*data) else {
        return bare().collect();
    };
    let dwarf = debug_information(&elf);
    let symbols = Symbols::of(&elf);
    let mut frames: Vec<Frame> = bare().collect();
    for (i, frame) in frames.iter_mut().enumerate() {
        // A return address may be the first one after the function that made the call.
        let probe = if i == 0 {
            frame.address
        } else {
            frame.address.saturating_sub(1)
        };
        frame.calls = dwarf
            .as_ref()
            .and_then(|dwarf| calls(dwarf, probe, here))
            .unwrap_or_default();
        complete(&mut frame.calls, symbols.function(probe));
    }
    frames
}

/// Adds what only the symbol table knows: functions without debug information, and the path of the
/// function that was not inlined (debug information has its last part only).
fn complete(calls: &mut Vec<Call>, symbol: Option<String>) {
    let Some(symbol) = symbol else {
        calls.retain(|call| call.function.is_some());
        return;
    };
    if calls.is_empty() {
        calls.push(Call::default());
    }
    if let Some(outermost) = calls.last_mut() {
        let same = |name: &String| symbol.rsplit("::").next() == name.rsplit("::").next();
        if outermost.function.as_ref().is_none_or(same) {
            outermost.function = Some(symbol);
        }
    }
}

fn read(image: &Path) -> Option<Vec<u8>> {
    let file = File::open(image).ok()?;
    if file.metadata().ok()?.len() > MAX_IMAGE {
        return None;
    }
    let mut data = Vec::new();
    file.take(MAX_IMAGE).read_to_end(&mut data).ok()?;
    Some(data)
}

fn debug_information<'data>(
    elf: &ElfFile64<'data, object::LittleEndian>,
) -> Option<addr2line::Context<Reader<'data>>> {
    let section = |id: SectionId| {
        let data = elf
            .section_by_name(id.name())
            .and_then(|section| section.data().ok());
        Ok::<_, gimli::Error>(EndianSlice::new(data.unwrap_or_default(), LittleEndian))
    };
    addr2line::Context::from_dwarf(gimli::Dwarf::load(section).ok()?).ok()
}

fn calls(dwarf: &addr2line::Context<Reader>, probe: u64, here: Option<&Path>) -> Option<Vec<Call>> {
    let mut found = dwarf.find_frames(probe).skip_all_loads().ok()?;
    let mut calls = Vec::new();
    while calls.len() < MAX_INLINED {
        let Ok(Some(frame)) = found.next() else {
            break;
        };
        let function = frame
            .function
            .as_ref()
            .and_then(|name| name.demangle().ok());
        calls.push(Call {
            function: function.map(|name| shortened(&name, MAX_NAME)),
            location: frame
                .location
                .and_then(|location| describe(&location, here)),
        });
    }
    (!calls.is_empty()).then_some(calls)
}

fn describe(location: &addr2line::Location, here: Option<&Path>) -> Option<String> {
    let file = Path::new(location.file?);
    let file = here
        .and_then(|here| file.strip_prefix(here).ok())
        .unwrap_or(file);
    let mut text = shortened(library_path(&file.to_string_lossy()), MAX_NAME);
    for number in [location.line, location.column]
        .into_iter()
        .map_while(|number| number)
    {
        text.push_str(&format!(":{number}"));
    }
    Some(text)
}

/// Files of Rust's own libraries are told without the compiler's version in front.
fn library_path(file: &str) -> &str {
    file.strip_prefix("/rustc/")
        .and_then(|rest| Some(rest.split_once('/')?.1))
        .unwrap_or(file)
}

/// The functions of the symbol table, by address.
struct Symbols<'data> {
    sorted: Vec<(u64, u64, &'data str)>,
}

impl<'data> Symbols<'data> {
    fn of(elf: &ElfFile64<'data, object::LittleEndian>) -> Self {
        let named = elf.symbols().filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            (symbol.kind() == object::SymbolKind::Text)
                .then(|| (symbol.address(), symbol.size(), name))
        });
        let mut sorted: Vec<_> = named.collect();
        sorted.sort_unstable();
        Self { sorted }
    }

    /// The last function that begins at or before `probe`, if it reaches that far.
    fn function(&self, probe: u64) -> Option<String> {
        let after = self.sorted.partition_point(|(start, _, _)| *start <= probe);
        let (start, size, name) = *self.sorted.get(after.checked_sub(1)?)?;
        let reach = if size == 0 { MAX_SYMBOL } else { size };
        (probe - start < reach)
            .then(|| shortened(&addr2line::demangle_auto(name.into(), None), MAX_NAME))
    }
}
