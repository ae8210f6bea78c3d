//! Runs a case of the lab where it belongs: see [`integration::lab::inside`].

fn main() -> anyhow::Result<()> {
    integration::lab::inside::main()
}
