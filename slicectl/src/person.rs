//! Who runs this: the defaults for owner and contact, and names of accounts.

/// The user's name, or `uid-N` if it has none.
pub fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&accounts, uid).unwrap_or_else(|| format!("uid-{uid}"))
}

/// The name of a group.
pub fn group_name(gid: u32) -> Option<String> {
    name_in(&std::fs::read_to_string("/etc/group").ok()?, gid)
}

/// `user@host`.
pub fn contact(user: &str) -> String {
    format!("{user}@{}", node())
}

/// The name of this host.
pub fn node() -> String {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    match host.is_empty() {
        true => "localhost".to_owned(),
        false => host,
    }
}

/// The name of the account with this number in the text of a password or group file.
fn name_in(accounts: &str, wanted: u32) -> Option<String> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == wanted && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_found_by_its_number() {
        let accounts =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(name_in(accounts, 1000).as_deref(), Some("ada"));
        assert_eq!(name_in(accounts, 0).as_deref(), Some("root"));
        assert_eq!(name_in(accounts, 7), None);
    }
}
