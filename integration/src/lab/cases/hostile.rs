//! A kernel that misbehaves, in ring 0, on a processor with complete virtualisation.

use crate::hostile::{Machine, Subject, bear, cases};
use crate::lab::inside::Stage;
use crate::lab::part::Part;

pub(super) fn kernels(stage: &Stage) {
    let machine = Machine::legacy_of(&stage.part(Part::Metal)).emulated();
    for subject in Subject::ALL {
        let cases = cases::legacy(subject);
        stage.step(format!("{subject:?}: {} cases", cases.len()));
        bear(&machine, subject, &cases);
    }
}
