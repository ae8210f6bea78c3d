//! The field `seed`.

use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ me";

fn seeded(seed: Value) -> Value {
    let mut spec = with("kernel", json!({}));
    spec["seed"] = seed;
    spec
}

#[test]
fn a_seed_is_written_back_as_it_was_read() {
    let spec = parse(&seeded(json!({
        "hostname": "www.example.org", "ssh_keys": [KEY], "network": false,
        "user_data": "#cloud-config\npackages: [\"a\\b\"]\n",
    })))
    .unwrap();
    assert_eq!(SliverSpec::parse(spec.to_json().as_bytes()).unwrap(), spec);
    let seed = spec.seed().unwrap();
    assert_eq!(seed.ssh_keys()[0].as_str(), KEY);
    assert!(!seed.network());
    let least = parse(&seeded(json!({}))).unwrap();
    assert!(least.seed().unwrap().network());
    assert_eq!(least.seed().unwrap().hostname(), None);
}

#[test]
fn a_native_image_has_no_seed() {
    let problems = problems(&with("seed", json!({})));
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("seed: is for legacy images"),
        "{problems:?}"
    );
}

#[test]
fn the_seed_is_one_of_the_disks_that_are_allowed() {
    let disks = |n: usize| -> Value {
        (0..n)
            .map(|i| json!({ "path": format!("/d{i}") }))
            .collect()
    };
    let mut spec = seeded(json!({}));
    spec["disks"] = disks(MAX_DISKS - 1);
    assert!(parse(&spec).is_ok());
    spec["disks"] = disks(MAX_DISKS);
    assert!(
        problems(&spec)[0].starts_with("disks: has 16"),
        "{:?}",
        problems(&spec)
    );
    spec["disks"] = json!([{ "path": "/d", "serial": "seed" }]);
    assert!(problems(&spec)[0].contains("is the seed's"));
}

#[test]
fn host_names_are_those_of_rfc_1123() {
    for good in ["a", "3com.com", "a-b.C9", &"x".repeat(63)] {
        assert!(Hostname::parse(good).is_ok(), "{good}");
    }
    let long = ["x".repeat(63).as_str(); 4].join(".") + ".x";
    for bad in [
        "",
        ".",
        "a.",
        "-a",
        "a-",
        "a_b",
        "a b",
        "ä",
        &"x".repeat(64),
        &long,
    ] {
        assert!(Hostname::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn keys_are_public_single_lines_of_a_known_type() {
    let two = format!("{KEY}\n{KEY}");
    let options = format!("from=\"10.0.0.1\" {KEY}");
    for bad in [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ",
        "ssh-ed25519 not!base64",
        &two,
        &options,
        &format!("{KEY}{}", "x".repeat(5000)),
    ] {
        assert!(PublicKey::parse(bad).is_err(), "{bad:?}");
    }
    assert_eq!(
        PublicKey::parse(&format!(" {KEY}\n")).unwrap().as_str(),
        KEY
    );
}

#[test]
fn a_private_key_is_refused_without_being_shown() {
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n-----END OPENSSH PRIVATE KEY-----\n";
    let problems = problems(&seeded(json!({ "ssh_keys": [key] })));
    assert!(
        problems[0].contains(".pub") && !problems[0].contains("secret"),
        "{problems:?}"
    );
}

#[test]
fn user_data_says_what_it_is() {
    for good in [
        "#cloud-config\n{}",
        "#!/bin/sh\n",
        "#cloud-config-archive\n",
        "## template: jinja\n",
    ] {
        assert!(
            parse(&seeded(json!({ "user_data": good }))).is_ok(),
            "{good}"
        );
    }
    let huge = format!("#!{}", "x".repeat(MAX_USER_DATA_BYTES));
    for bad in ["", "packages: []\n", " #!/bin/sh", "#!\0", &huge] {
        let problems = problems(&seeded(json!({ "user_data": bad })));
        assert!(problems[0].starts_with("seed.user_data: "), "{problems:?}");
    }
}

proptest! {
    #[test]
    fn every_sliver_s_name_gives_a_host_name(name in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}") {
        let host = Hostname::of_sliver(SliverName::parse(&name).unwrap().as_str());
        prop_assert_eq!(Hostname::parse(host.as_str()), Ok(host));
    }
}
