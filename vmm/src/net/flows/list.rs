//! Lists of flows in the order of time, linked through the flows themselves.

/// Nobody.
pub(super) const NONE: u32 = u32::MAX;

/// The neighbours of a member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    before: u32,
    after: u32,
}

impl Links {
    pub(super) const UNLINKED: Self = Self {
        before: NONE,
        after: NONE,
    };
}

/// Where members keep their links of a list.
pub(super) trait Members {
    fn links(&mut self, member: u32) -> &mut Links;
}

/// A list; the oldest member is first.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    first: u32,
    last: u32,
    len: usize,
}

impl List {
    pub(super) const EMPTY: Self = Self {
        first: NONE,
        last: NONE,
        len: 0,
    };

    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub(super) fn is_last(&self, member: u32) -> bool {
        self.last == member
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn append(&mut self, members: &mut impl Members, member: u32) {
        *members.links(member) = Links {
            before: self.last,
            after: NONE,
        };
        match self.last {
            NONE => self.first = member,
            last => members.links(last).after = member,
        }
        self.last = member;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, members: &mut impl Members, member: u32) {
        let Links { before, after } = std::mem::replace(members.links(member), Links::UNLINKED);
        match before {
            NONE => self.first = after,
            before => members.links(before).after = after,
        }
        match after {
            NONE => self.last = before,
            after => members.links(after).before = before,
        }
        self.len -= 1;
    }
}
