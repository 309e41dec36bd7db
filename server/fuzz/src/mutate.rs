//! Changes to inputs: bits, bytes, words, numbers, cuts, splices, repetitions. Deterministic; never looks at a result.

use crate::json;

/// The longest input made.
const INPUT_BYTES_MAX: usize = 32 * 1024;
/// Bytes that parsers tend to stumble over.
const ODD: &[u8] = b"\0\n\r\t\"'\\/%.,:;={}[]()<>*+-_ 019azAZ\x7f\x80\xbf\xc2\xe2\xff";
/// Numbers at the edges of what types hold.
const EDGES: [&str; 14] = [
    "0",
    "1",
    "-1",
    "255",
    "256",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "0.0000000001",
];

pub(crate) struct Mutator<'a> {
    state: u64,
    words: &'a [&'a str],
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(seed: u64, words: &'a [&'a str]) -> Self {
        Self { state: seed, words }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; zero if there is none.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random() % end.max(1) as u64).unwrap_or(0)
    }

    /// One of the target's words, if it has any.
    pub(crate) fn word(&mut self) -> Option<&'a str> {
        let at = self.below(self.words.len());
        self.words.get(at).copied()
    }

    /// A range within `len`, more often short than long.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.below(len + 1);
        let longest = if self.below(4) == 0 { len - from } else { (len - from).min(8) };
        from..from + self.below(longest + 1)
    }

    /// One of the pool, changed a few times over.
    pub(crate) fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = pool.get(self.below(pool.len())).cloned().unwrap_or_default();
        // Documents are changed as documents half of the time: bytes alone rarely leave one that parses.
        if self.below(2) == 0
            && let Some(changed) = json::change(self, &input)
        {
            return changed;
        }
        for _ in 0..=self.below(5) {
            self.change(&mut input, pool);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(11) {
            0 if !input.is_empty() => {
                let (at, bit) = (self.below(input.len()), self.below(8));
                input[at] ^= 1 << bit;
            }
            1 if !input.is_empty() => {
                let at = self.below(input.len());
                input[at] = ODD[self.below(ODD.len())];
            }
            2 => input.insert(at, ODD[self.below(ODD.len())]),
            3 => drop(input.drain(self.range(input.len()))),
            4 => input.truncate(at),
            5 => {
                let other = pool.get(self.below(pool.len())).map_or(&[][..], Vec::as_slice);
                let part = other[self.range(other.len())].to_vec();
                drop(input.splice(at..at, part));
            }
            6 => {
                let part = input[self.range(input.len())].to_vec();
                let fits = (INPUT_BYTES_MAX - input.len().min(INPUT_BYTES_MAX)) / part.len().max(1);
                let most = if self.below(20) == 0 { fits } else { fits.min(40) };
                let repeated = part.repeat(self.below(most + 1));
                drop(input.splice(at..at, repeated));
            }
            7 => {
                let over = digits(input, at);
                drop(input.splice(over, EDGES[self.below(EDGES.len())].bytes()));
            }
            _ => {
                let over = if self.below(3) == 0 { self.range(input.len()) } else { at..at };
                let word = self.word().unwrap_or_default();
                drop(input.splice(over, word.bytes()));
            }
        }
    }

    /// A number at the edge of some type.
    pub(crate) fn edge(&mut self) -> &'static str {
        EDGES[self.below(EDGES.len())]
    }
}

/// The first run of digits from `at` on; nothing, at the end, if there is none.
fn digits(input: &[u8], at: usize) -> std::ops::Range<usize> {
    let from = input[at..].iter().position(u8::is_ascii_digit).map_or(input.len(), |n| at + n);
    let len = input[from..].iter().take_while(|c| c.is_ascii_digit()).count();
    from..from + len
}
