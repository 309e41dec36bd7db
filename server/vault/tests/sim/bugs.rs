//! Bugs that can be planted in what surrounds the vault, to see that the simulator finds them.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The store ignores guards: a decision on a row that was only read is not validated.
    GuardsIgnored,
    /// The store forgets its last acknowledged commit when the process dies.
    CommitForgotten,
    /// The database says that an account is gone, now and then, and it is not.
    RevocationPretended,
    /// A statement may still arrive at the database when everybody has given it up.
    CreationFarTooLate,
}

impl Bug {
    pub const ALL: [Self; 4] =
        [Self::GuardsIgnored, Self::CommitForgotten, Self::RevocationPretended, Self::CreationFarTooLate];
}
