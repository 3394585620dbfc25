//! Byte-level BPE, as GPT-NeoX 20B has it, by the crate `tokenizers`.

use std::{collections::HashMap, path::Path};

use super::TokenizerError;

/// A tokenizer from a `tokenizer.json`, such as `20B_tokenizer.json`.
#[derive(Debug, Clone)]
pub struct Neox {
    inner: tokenizers::Tokenizer,
    /// The bytes of each id.
    pieces: Vec<Vec<u8>>,
    end_of_text: Option<u32>,
}

impl Neox {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TokenizerError::File`].
    pub fn read(path: &Path) -> Result<Self, TokenizerError> {
        let refused = |reason: String| TokenizerError::File { path: path.to_owned(), reason };
        let json = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
        let inner = tokenizers::Tokenizer::from_bytes(json);
        let inner = inner.map_err(|error| refused(error.to_string()))?;
        let vocabulary = inner.get_vocab(true);
        let most = vocabulary.values().copied().max().unwrap_or_default() as usize;
        if most >= 1 << 20 {
            return Err(refused(format!("its id {most} is above a million")));
        }
        let added = inner.get_added_tokens_decoder();
        let bytes = bytes();
        let mut pieces = vec![Vec::new(); most + 1];
        for (token, id) in vocabulary {
            pieces[id as usize] = match added.get(&id) {
                Some(token) if token.special => Vec::new(),
                Some(token) => token.content.clone().into_bytes(),
                None => token
                    .chars()
                    .map(|c| bytes.get(&c).copied())
                    .collect::<Option<_>>()
                    .ok_or_else(|| {
                        refused(format!(
                            "its token {token:?} is not made of bytes: only byte-level BPE is read"
                        ))
                    })?,
            };
        }
        let end_of_text = inner.token_to_id("<|endoftext|>");
        Ok(Self { inner, pieces, end_of_text })
    }

    /// How many token ids there are.
    pub fn ids(&self) -> u32 {
        self.pieces.len() as u32
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// [`TokenizerError::Utf8`], [`TokenizerError::Encode`].
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, TokenizerError> {
        let text = std::str::from_utf8(text);
        let text = text.map_err(|error| TokenizerError::Utf8(error.valid_up_to()))?;
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(|error| TokenizerError::Encode(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The bytes of a token, none if it is special or not in the vocabulary.
    pub fn decode(&self, token: u32) -> &[u8] {
        self.pieces.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// The token `<|endoftext|>`.
    pub const fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }
}

/// The byte that each character of a token stands for: GPT-2's table, in which printable bytes
/// are themselves and the others follow from U+0100 on.
fn bytes() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=255u8).filter(|byte| !printable(*byte)).zip('\u{100}'..);
    let themselves =
        (0..=255u8).filter(|byte| printable(*byte)).map(|byte| (char::from(byte), byte));
    themselves.chain(others.map(|(byte, c)| (c, byte))).collect()
}

#[cfg(test)]
mod tests {
    use rwkv_core::image::TokenizerKind;
    use rwkv_tests::random::{self, CONTAINERS, VERSIONS};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        checkpoint::Checkpoint,
        convert::{Options, Weights, convert},
        file::ImageFile,
        tokenizer::Choice,
    };

    /// The characters of all bytes, in order.
    fn characters() -> Vec<char> {
        let mut characters: Vec<(u8, char)> = bytes().into_iter().map(|(c, b)| (b, c)).collect();
        characters.sort_unstable();
        characters.into_iter().map(|(_, c)| c).collect()
    }

    /// Byte-level BPE in the form of `20B_tokenizer.json`.
    fn json(vocabulary: HashMap<String, usize>, merges: &[[&str; 2]], added: &[Value]) -> String {
        let byte_level =
            json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true });
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": { "type": "NFC" }, "pre_tokenizer": byte_level, "post_processor": null,
            "decoder": byte_level,
            "model": { "type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "vocab": vocabulary, "merges": merges },
        })
        .to_string()
    }

    /// The bytes, a few merges and two added tokens.
    fn usual() -> String {
        let merges = [["t", "h"], ["th", "e"], ["\u{120}", "the"], ["\u{c3}", "\u{a9}"]];
        let characters = characters().into_iter().map(String::from);
        let all = ["<|endoftext|>".into()].into_iter().chain(characters);
        let all = all.chain(merges.iter().map(|pair| pair.concat()));
        let added = |id: usize, content: &str, special: bool| {
            json!({ "id": id, "content": content, "special": special, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": !special })
        };
        let added = [added(0, "<|endoftext|>", true), added(261, "    ", false)];
        json(all.zip(0..).collect(), &merges, &added)
    }

    #[test]
    fn byte_level_tokens_have_their_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), usual()).unwrap();
        let neox = Neox::read(file.path()).unwrap();
        assert_eq!((neox.ids(), neox.end_of_text()), (262, Some(0)));
        let text = "the the\n    é世";
        let tokens = neox.encode(text.as_bytes()).unwrap();
        assert_eq!(tokens, [258, 259, 11, 261, 260, 0xe4 + 1, 0xb8 + 1, 0x96 + 1]);
        let back: Vec<u8> = tokens.iter().flat_map(|t| neox.decode(*t)).copied().collect();
        assert_eq!(back, text.as_bytes());
        assert_eq!((neox.decode(0), neox.decode(262)), (&[][..], &[][..]));
        assert!(matches!(neox.encode(b"a\xff"), Err(TokenizerError::Utf8(1))));
        std::fs::write(file.path(), "{}").unwrap();
        assert!(matches!(Neox::read(file.path()), Err(TokenizerError::File { .. })));
    }

    /// Such a tokenizer goes with any version in any container: the image says that the host has it.
    #[test]
    fn every_version_from_every_container() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        let all = characters().into_iter().map(String::from).zip(0..).collect();
        std::fs::write(&path, json(all, &[], &[])).unwrap();
        let tokenizer = Choice::read(&path, 256).unwrap();
        let options = Options { tokenizer: &tokenizer, ..Options::new(Weights::Int8) };
        let check = |path: &Path| {
            let checkpoint = Checkpoint::open(path).unwrap();
            let image = ImageFile::new(&convert(&checkpoint, &options, |_, _| ()).unwrap());
            let image = image.open().unwrap();
            assert_eq!(image.header().tokenizer, TokenizerKind::Host);
            assert!(image.tokenizer().is_none());
        };
        for (container, versions) in CONTAINERS {
            versions.iter().for_each(|v| check(random::checkpoint(v, container).path()));
        }
        VERSIONS.iter().for_each(|version| check(random::sharded(version).path()));
    }
}
