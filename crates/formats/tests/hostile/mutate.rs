//! Reproducible random changes.

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Overwrites, inserts, removes, duplicates or cuts at random places; often with numbers that lengths dislike.
pub fn binary(file: &mut Vec<u8>, random: &mut Random) {
    const NUMBERS: [u64; 12] =
        [0, 1, 2, 9, 255, 1 << 16, 1 << 31, u32::MAX as u64, 1 << 32, 1 << 62, 1 << 63, u64::MAX];
    for _ in 0..=random.below(4) {
        if file.is_empty() {
            return;
        }
        let at = random.below(file.len());
        match random.below(7) {
            0 => file[at] = random.next() as u8,
            1 => file[at] ^= 1 << random.below(8),
            2 | 3 => {
                let number = random.pick(&NUMBERS).to_le_bytes();
                let width = random.pick(&[4, 8]).min(file.len() - at);
                file[at..at + width].copy_from_slice(&number[..width]);
            }
            4 => {
                let end = (at + random.below(24)).min(file.len());
                file.drain(at..end);
            }
            5 => {
                let end = (at + random.below(40)).min(file.len());
                let piece = file[at..end].to_vec();
                let to = random.below(file.len());
                file.splice(to..to, piece);
            }
            _ => file.truncate(at),
        }
    }
}

/// Replaces, repeats or removes what lies between structural characters of a JSON text from `start` on.
pub fn json(text: &mut Vec<u8>, start: usize, random: &mut Random) {
    const PIECES: [&str; 22] = [
        "0",
        "1",
        "2",
        "4",
        "-1",
        "1.5",
        "1e400",
        "65536",
        "4294967296",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "\"\"",
        "\"../x\"",
        "\"U8\"",
        "\"F4\"",
        "\"mxfp4\"",
        "null",
        "true",
        "[]",
        "{}",
        "[0,1]",
    ];
    for _ in 0..=random.below(3) {
        let structural: Vec<usize> = (start..text.len()).filter(|&at| b"{}[]:,".contains(&text[at])).collect();
        if structural.len() < 2 {
            return;
        }
        let first = random.below(structural.len() - 1);
        let span = structural[first] + 1..structural[first + 1];
        let wide = structural[first]..structural[random.below(structural.len() - first) + first];
        match random.below(6) {
            0 | 1 => drop(text.splice(span, random.pick(&PIECES).bytes())),
            2 => {
                let piece = text[wide].to_vec();
                let at = structural[random.below(structural.len())];
                text.splice(at..at, piece);
            }
            3 => drop(text.drain(wide)),
            4 => {
                let piece = text[span.clone()].to_vec();
                let other = random.below(structural.len() - 1);
                text.splice(structural[other] + 1..structural[other + 1], piece);
            }
            _ => text[span.start - 1] = random.pick(b"{}[]:,\"\\ \0"),
        }
    }
}
