//! What a legacy image's cloud-init is told (NoCloud), in its spec.

use std::fmt;

use serde::Serialize;

use super::disk::{DiskSpec, MAX_DISKS};
use super::fields::Fields;

/// The most keys.
pub const MAX_KEYS: usize = 32;

/// The longest key, in bytes: RSA with 16384 bits and a comment.
const MAX_KEY_BYTES: usize = 4096;

/// The longest user data, in bytes.
pub const MAX_USER_DATA_BYTES: usize = 256 << 10;

/// The longest host name, in bytes (RFC 1123, 2.1).
const MAX_HOSTNAME_BYTES: usize = 255;

/// The longest part of one between dots.
const MAX_LABEL_BYTES: usize = 63;

/// Serial number of the seed's disk.
pub const SEED_SERIAL: &str = "seed";

/// What public keys begin with.
const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// What user data begins with: by it cloud-init knows what to do with the rest.
const HEADERS: [&str; 11] = [
    "#cloud-config",
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "#upstart-job",
    "## template:",
    "Content-Type: ",
    "Content-type: ",
    "MIME-Version: ",
    "Mime-Version: ",
];

/// What cloud-init is told; every field may be left out.
///
/// ```json
/// {
///   "hostname": "www.example.org", "ssh_keys": ["ssh-ed25519 AAAAC3Nz... ada@host"],
///   "user_data": "#cloud-config\npackages: [nginx]\n", "network": true
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeedSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<Hostname>,
    ssh_keys: Vec<PublicKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_data: Option<String>,
    network: bool,
}

/// A host's name (RFC 1123): parts of `a-z A-Z 0-9 -` with dots between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hostname(String);

/// A public key as in `authorized_keys`, without options: type, key and maybe a comment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublicKey(String);

/// Reads the field `seed` of a sliver that has a kernel or not, and these disks.
pub(super) fn read(fields: &mut Fields, has_kernel: bool, disks: &[DiskSpec]) -> Option<SeedSpec> {
    let seed = fields.object("seed", SeedSpec::read)?;
    if !has_kernel {
        let why = "is for legacy images, which have a `kernel`: a native one reads none";
        fields.mistake("seed", why.to_owned());
    }
    if disks.len() >= MAX_DISKS {
        let why = format!("has {MAX_DISKS}, and the seed is one more: {MAX_DISKS} are allowed");
        fields.mistake("disks", why);
    }
    if disks.iter().any(|disk| disk.serial() == SEED_SERIAL) {
        let why = format!("one has the serial {SEED_SERIAL:?}, which is the seed's");
        fields.mistake("disks", why);
    }
    Some(seed)
}

impl SeedSpec {
    fn read(fields: &mut Fields) -> Self {
        let hostname = fields.optional_parsed("hostname", Hostname::parse);
        let texts = fields.strings("ssh_keys");
        if texts.len() > MAX_KEYS {
            let why = format!("has {}, {MAX_KEYS} are allowed", texts.len());
            fields.mistake("ssh_keys", why);
        }
        let mut ssh_keys = Vec::new();
        for (i, text) in texts.iter().take(MAX_KEYS).enumerate() {
            match PublicKey::parse(text) {
                Ok(key) => ssh_keys.push(key),
                Err(problem) => fields.mistake(&format!("ssh_keys[{i}]"), problem),
            }
        }
        Self {
            hostname,
            ssh_keys,
            user_data: fields.optional_parsed("user_data", user_data),
            network: fields.bool("network", true),
        }
    }

    /// The name of the host; without one, the sliver's.
    pub fn hostname(&self) -> Option<&Hostname> {
        self.hostname.as_ref()
    }

    /// Who may log in, at most [`MAX_KEYS`].
    pub fn ssh_keys(&self) -> &[PublicKey] {
        &self.ssh_keys
    }

    /// What cloud-init shall do beside, at most [`MAX_USER_DATA_BYTES`].
    pub fn user_data(&self) -> Option<&str> {
        self.user_data.as_deref()
    }

    /// Whether it is told the addresses of the network cards; without, it asks for some on the
    /// first.
    pub fn network(&self) -> bool {
        self.network
    }
}

impl Hostname {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_label = |label: &str| {
            (1..=MAX_LABEL_BYTES).contains(&label.len())
                && label
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || c == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= MAX_HOSTNAME_BYTES && text.split('.').all(is_label) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not a host name: parts of a-z A-Z 0-9 - with dots between them, each \
                 of 1 to {MAX_LABEL_BYTES} and none beginning or ending with -"
            ))
        }
    }

    /// The one that is nearest to a sliver's name.
    pub(crate) fn of_sliver(name: &str) -> Self {
        let hyphens = name.replace('_', "-");
        let labels = hyphens.split('.').map(|label| label.trim_matches('-'));
        let labels: Vec<&str> = labels.filter(|label| !label.is_empty()).collect();
        Self(labels.join("."))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PublicKey {
    /// Checks a key. What it says of a private one shows nothing of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.contains("PRIVATE KEY") {
            return Err(
                "is a private key: give the public one, in the file ending with .pub".into(),
            );
        }
        if text.len() > MAX_KEY_BYTES {
            return Err(format!(
                "has {} bytes, {MAX_KEY_BYTES} are allowed",
                text.len()
            ));
        }
        if text.chars().any(char::is_control) {
            return Err("is more than one line, or has control characters".to_owned());
        }
        let mut words = text.split_ascii_whitespace();
        let kind = words.next().unwrap_or_default();
        if !KEY_TYPES.contains(&kind) {
            return Err(format!(
                "{kind:?} is not the type of a public key: known are {}",
                KEY_TYPES.join(", ")
            ));
        }
        match words.next().map(|word| names_type(word, kind)) {
            Some(true) => Ok(Self(text.to_owned())),
            Some(false) => Err(format!("what follows {kind} is not such a key")),
            None => Err(format!("nothing follows {kind}")),
        }
    }

    /// The line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether base64 text begins with the name of a key's type, as all keys do (RFC 4253, 6.6: its
/// length in four bytes, then it), and goes on.
fn names_type(text: &str, kind: &str) -> bool {
    let mut bits = 0u32;
    let mut held = 0;
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return false,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    let mut beginning = (kind.len() as u32).to_be_bytes().to_vec();
    beginning.extend(kind.bytes());
    bytes.len() > beginning.len() + 4 && bytes.starts_with(&beginning)
}

fn user_data(text: &str) -> Result<String, String> {
    if text.len() > MAX_USER_DATA_BYTES {
        return Err(format!(
            "has {} bytes, {MAX_USER_DATA_BYTES} are allowed",
            text.len()
        ));
    }
    if text.contains('\0') {
        return Err("contains a NUL character".to_owned());
    }
    if !HEADERS.iter().any(|header| text.starts_with(header)) {
        return Err(
            "does not begin with what cloud-init knows, such as #cloud-config or #!".to_owned(),
        );
    }
    Ok(text.to_owned())
}
