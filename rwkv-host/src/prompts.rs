//! Prompts of many runs, from a file of JSON lines.

use std::{fs, path::Path};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// A prompt, and how far it is continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What it is called where results are shown.
    pub name: String,
    /// Its tokens, at least one.
    pub tokens: Vec<u32>,
    /// Tokens to generate after it.
    pub generate: u32,
}

impl Case {
    /// One without a name of its own, the first of all being number 0.
    pub fn numbered(number: usize, tokens: Vec<u32>, generate: u32) -> Self {
        Self { name: format!("prompt {}", number + 1), tokens, generate }
    }
}

/// A line of the file: an object with one of `prompt` and `tokens`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: Option<String>,
    tokens: Option<Vec<u32>>,
    generate: Option<u32>,
    name: Option<String>,
}

impl Line {
    fn parse(line: &str) -> anyhow::Result<Self> {
        match line.trim_start().chars().next() {
            Some('"') => Ok(Self { prompt: Some(serde_json::from_str(line)?), ..Self::default() }),
            Some('{') => Ok(serde_json::from_str(line)?),
            Some(_) => bail!("neither a JSON string nor an object"),
            None => bail!("the line is empty"),
        }
    }

    fn case(
        self,
        number: usize,
        generate: u32,
        tokens: impl FnOnce(&[u8]) -> anyhow::Result<Vec<u32>>,
    ) -> anyhow::Result<Case> {
        let tokens = match (self.prompt, self.tokens) {
            (Some(text), None) => tokens(text.as_bytes())?,
            (None, Some(tokens)) => tokens,
            _ => bail!("give either `prompt` or `tokens`"),
        };
        ensure!(!tokens.is_empty(), "the prompt is empty: give at least one token");
        let case = Case::numbered(number, tokens, self.generate.unwrap_or(generate));
        Ok(Case { name: self.name.unwrap_or(case.name), ..case })
    }
}

/// Reads prompts, one in each line: a JSON string, or an object such as
/// `{"prompt": "X:1", "generate": 64, "name": "a tune"}`, with `tokens`, a list of ids, in the place
/// of `prompt` where there is no text. Those that do not say how many tokens they generate have
/// `generate` of them. `tokens` takes a text apart.
///
/// # Errors
/// What is wrong, and in which line.
pub fn parse(
    text: &str,
    vocab: u32,
    generate: u32,
    mut tokens: impl FnMut(&[u8]) -> anyhow::Result<Vec<u32>>,
) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let case = Line::parse(line).and_then(|line| {
            let case = line.case(number, generate, &mut tokens)?;
            if let Some(token) = case.tokens.iter().find(|token| **token >= vocab) {
                bail!("token {token} is not in the model's vocabulary of {vocab} tokens");
            }
            Ok(case)
        });
        cases.push(case.with_context(|| {
            format!(
                "line {}; each is a string in JSON, or an object such as \
                 {{\"prompt\": \"X:1\", \"generate\": 64, \"name\": \"a tune\"}} or {{\"tokens\": [88, 58]}}",
                number + 1
            )
        })?);
    }
    ensure!(!cases.is_empty(), "there is no prompt in it");
    Ok(cases)
}

/// Reads a file of prompts, as [`parse`] does.
///
/// # Errors
/// As there, or if the file cannot be read.
pub fn read(
    path: &Path,
    vocab: u32,
    generate: u32,
    tokens: impl FnMut(&[u8]) -> anyhow::Result<Vec<u32>>,
) -> anyhow::Result<Vec<Case>> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read prompts {}", path.display()))?;
    parse(&text, vocab, generate, tokens).with_context(|| format!("prompts {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &[u8]) -> anyhow::Result<Vec<u32>> {
        Ok(text.iter().map(|byte| u32::from(*byte)).collect())
    }

    #[test]
    fn a_line_is_a_text_or_an_object() {
        let text = "\"ab\"\r\n{\"prompt\": \"\\u00e9\", \"generate\": 3, \"name\": \"accent\"}\n{\"tokens\":[1,2]}\n";
        let cases = parse(text, 256, 64, bytes).unwrap();
        let named = |name: &str, tokens: &[u32], generate| Case {
            name: name.to_owned(),
            tokens: tokens.to_vec(),
            generate,
        };
        let expected = [
            named("prompt 1", &[97, 98], 64),
            named("accent", &[0xc3, 0xa9], 3),
            named("prompt 3", &[1, 2], 64),
        ];
        assert_eq!(cases, expected);
    }

    #[test]
    fn anything_else_is_named_with_its_line() {
        let wrong = [
            ("7", "neither a JSON string nor an object"),
            ("[1, 2]", "neither a JSON string nor an object"),
            ("null", "neither a JSON string nor an object"),
            ("", "the line is empty"),
            ("\"a", "EOF while parsing a string"),
            ("\"a\" \"b\"", "trailing characters"),
            ("{}", "give either `prompt` or `tokens`"),
            ("{\"prompt\": \"a\", \"tokens\": [1]}", "give either `prompt` or `tokens`"),
            ("{\"prompt\": \"a\", \"promt\": \"b\"}", "unknown field `promt`"),
            ("{\"prompt\": \"a\", \"generate\": -1}", "invalid value"),
            ("{\"prompt\": \"a\", \"prompt\": \"b\"}", "duplicate field"),
            ("{\"prompt\": \"\"}", "the prompt is empty"),
            ("{\"tokens\": []}", "the prompt is empty"),
            ("{\"tokens\": [256]}", "token 256 is not in the model's vocabulary of 256 tokens"),
            ("{\"tokens\": [-1]}", "invalid value"),
        ];
        for (line, expected) in wrong {
            let error = parse(&format!("\"a\"\n{line}\n"), 256, 64, bytes).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.starts_with("line 2; each is "), "{line}: {text}");
            assert!(text.contains(expected), "{line}: {text}");
        }
        assert!(parse("", 256, 64, bytes).unwrap_err().to_string().contains("no prompt"));
    }
}
