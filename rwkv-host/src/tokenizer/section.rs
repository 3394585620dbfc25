//! The tokenizer section of an image.

use super::List;

impl List {
    /// The words of the section: head, a word per id, the order, the bytes.
    pub fn section(&self) -> Vec<u32> {
        let mut order: Vec<usize> =
            (0..self.tokens.len()).filter(|id| !self.tokens[*id].is_empty()).collect();
        order.sort_by_key(|id| &self.tokens[*id]);
        // As many tokens as there are ids, of any length, have less than 2^24 bytes together.
        let (entries, bytes) = self.places(&order);
        let head = [self.tokens.len(), order.len(), bytes.len(), 0];
        let mut words: Vec<u32> = head.iter().map(|n| *n as u32).collect();
        words.extend(entries);
        words.extend(order.chunks(2).map(|pair| {
            let [low, high] = [0, 1].map(|i| pair.get(i).copied().unwrap_or_default() as u32);
            low | high << 16
        }));
        words.extend(bytes.chunks(4).map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_le_bytes(word)
        }));
        words.resize(words.len().next_multiple_of(4), 0);
        words
    }

    /// Where each token lies, and the bytes: a token that the next one in the order begins with
    /// lies in that one.
    fn places(&self, order: &[usize]) -> (Vec<u32>, Vec<u8>) {
        let mut entries = vec![0; self.tokens.len()];
        let mut bytes: Vec<u8> = Vec::new();
        let mut start = 0;
        for (rank, id) in order.iter().enumerate() {
            let token = &self.tokens[*id];
            entries[*id] = start as u32 | (token.len() as u32) << 24;
            let next = order.get(rank + 1).map(|id| &self.tokens[*id]);
            if !next.is_some_and(|next| next.starts_with(token)) {
                bytes.extend_from_slice(token);
                start = bytes.len();
            }
        }
        (entries, bytes)
    }
}
