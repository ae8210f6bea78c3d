//! A ledger whose bytes are anybody's: whatever they are, what is read of it is sane.

use proptest::prelude::*;
use slice_abi::layout::MAX_VCPUS;

use super::*;
use crate::spec::MAX_SHARE;

/// Bytes at random, with some that come close to an entry.
fn page() -> impl Strategy<Value = Vec<u32>> {
    let word = prop_oneof![
        Just(0),
        0u32..4,
        any::<u32>(),
        Just(u32::MAX),
        Just((NOW.0 >> 32) as u32),
        Just(NOW.0 as u32),
    ];
    proptest::collection::vec(word, PAGE / 4)
}

fn write_page(place: &Place, at: usize, words: &[u32]) {
    let file = File::options()
        .write(true)
        .open(place.path())
        .expect("opened");
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    file.write_all_at(&bytes, at as u64).expect("written");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_bytes_give_sane_rivals(
        header in proptest::option::of(page()),
        pages in proptest::collection::vec(page(), 1..8),
    ) {
        let place = Place::new();
        let ledger = place.join("honest");
        for (i, page) in pages.iter().enumerate() {
            write_page(&place, layout::page_offset(1 + i), page);
        }
        write_page(&place, 0, &{
            let mut sound: Vec<u32> = Header::initial()
                .chunks_exact(4)
                .map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")))
                .collect();
            sound[4] = 1 + pages.len() as u32;
            header.clone().unwrap_or(sound)
        });
        let seen = rivals(&ledger, NOW);
        prop_assert!(seen.len() < SLOTS);
        for rival in seen {
            prop_assert!(rival.slot < SLOTS && rival.slot != ledger.slot());
            prop_assert!((1..=MAX_VCPUS as u32).contains(&rival.demand));
            prop_assert!((1..=MAX_SHARE).contains(&rival.claim.share));
            prop_assert!(rival.claim.reserve <= MilliCpu(2000));
            prop_assert!((1..=32_000).contains(&rival.claim.ceiling.0));
            prop_assert!(rival.vtime < NOW.0 * 10);
            ledger.wake(rival.slot);
        }
        ledger.publish(NOW, busy(1));
        let sound = ledger.is_current();
        prop_assert!(sound || header.is_some());
        let other = place.join("newcomer");
        prop_assert!(other.is_current());
        let _ = ledger.set_claim(claim(2, 100));
        place.view();
    }
}

#[test]
fn an_entry_that_is_never_at_rest_is_not_waited_for() {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    two.publish(NOW, busy(5));
    let at = layout::page_offset(two.slot()) + layout::entry_offset(two.slot());
    let file = File::options()
        .write(true)
        .open(place.path())
        .expect("opened");
    file.write_all_at(&[1], at as u64).expect("written");
    assert!(rivals(&one, NOW).is_empty());
    two.publish(NOW, busy(6));
    assert_eq!(
        rivals(&one, NOW).len(),
        1,
        "its own count is not the page's"
    );
}

#[test]
fn an_own_page_that_others_wiped_is_whole_after_the_next_look() {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    write_page(&place, layout::page_offset(two.slot()), &[0; PAGE / 4]);
    two.publish(NOW, busy(6));
    assert_eq!(rivals(&one, NOW).len(), 1);
    let file = File::options()
        .write(true)
        .open(place.path())
        .expect("opened");
    file.write_all_at(&0u32.to_ne_bytes(), Header::USED_OFFSET)
        .expect("written");
    assert!(!two.is_current(), "nobody sees it");
}

#[test]
fn a_truncated_file_harms_nobody_who_has_it_mapped() {
    let place = Place::new();
    let (one, two) = (place.join("one"), place.join("two"));
    one.publish(NOW, busy(5));
    two.publish(NOW, busy(5));
    let file = File::options()
        .write(true)
        .open(place.path())
        .expect("opened");
    file.set_len(0).expect("cut");
    one.publish(NOW, busy(6));
    assert!(rivals(&one, NOW).is_empty());
    one.wake(two.slot());
    // Back to its length, with other content: the damage is remembered.
    file.set_len(FILE_BYTES as u64).expect("extended");
    file.write_all_at(&Header::initial(), 0).expect("written");
    assert!(!one.is_current());
    drop(one);
    assert!(place.join("one").is_current());
}
