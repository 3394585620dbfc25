//! Recipes: how each tensor is stored, in a text file.
//!
//! ```toml
//! # The first rule that matches a tensor counts.
//! [[rule]]
//! tensor = "blocks.*.att.output.weight"   # official names; * stands for anything
//! weights = "int8"                        # f32, f16, int8 or int4
//! input_bits = 12                         # optional: 8 to 15, for int8 and int4
//! ```

use glob::Pattern;
use serde::Deserialize;
use thiserror::Error;

use crate::convert::Weights;

/// Rules in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    rules: Vec<Rule>,
}

/// How the tensors of a name are stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    tensor: Pattern,
    /// The format.
    pub weights: Weights,
    /// Bits of quantised inputs instead of the most that cannot overflow.
    pub input_bits: Option<u8>,
}

/// What is wrong with a recipe.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The file cannot be understood.
    #[error("the recipe cannot be understood: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A name is no pattern.
    #[error("rule {rule}: {pattern:?} is no pattern: {error}")]
    Pattern {
        /// The rule, the first being 1.
        rule: usize,
        /// The name.
        pattern: String,
        /// Why.
        error: glob::PatternError,
    },
    /// Bits that cannot be, or where there are none.
    #[error("rule {rule}: {problem}")]
    InputBits {
        /// The rule, the first being 1.
        rule: usize,
        /// Why.
        problem: &'static str,
    },
    /// A rule has nothing to say.
    #[error("rule {rule}: {pattern:?} matches none of the model's matrices; they are {found}")]
    Unmatched {
        /// The rule, the first being 1.
        rule: usize,
        /// The name.
        pattern: String,
        /// Some that there are.
        found: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tensor: String,
    weights: Weights,
    input_bits: Option<u8>,
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// [`RecipeError`], but not [`RecipeError::Unmatched`].
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let File { rule } = toml::from_str(text)?;
        let rules = (1..).zip(rule).map(|(rule, written)| {
            let Written { tensor, weights, input_bits } = written;
            let integers = matches!(weights, Weights::Int8 | Weights::Int4);
            let problem = match input_bits {
                Some(_) if !integers => Some("the inputs of float weights are not quantised"),
                Some(bits) if !(8..=15).contains(&bits) => Some("input_bits is 8 to 15"),
                _ => None,
            };
            if let Some(problem) = problem {
                return Err(RecipeError::InputBits { rule, problem });
            }
            let pattern = Pattern::new(&tensor);
            let tensor =
                pattern.map_err(|error| RecipeError::Pattern { rule, pattern: tensor, error })?;
            Ok(Rule { tensor, weights, input_bits })
        });
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// The rule for a tensor, if there is one.
    pub fn rule(&self, tensor: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.tensor.matches(tensor))
    }

    /// Checks that every rule matches one of the model's matrices, be it after another.
    ///
    /// # Errors
    /// [`RecipeError::Unmatched`].
    pub fn check(&self, tensors: &[String]) -> Result<(), RecipeError> {
        let idle = |rule: &Rule| !tensors.iter().any(|name| rule.tensor.matches(name));
        match self.rules.iter().position(idle) {
            None => Ok(()),
            Some(index) => Err(RecipeError::Unmatched {
                rule: index + 1,
                pattern: self.rules[index].tensor.as_str().into(),
                found: crate::convert::sample(tensors.iter().map(String::as_str)),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_counts() {
        let recipe = Recipe::parse(
            "[[rule]]\ntensor = 'blocks.0.*.weight'\nweights = 'int8'\ninput_bits = 9\n\
             [[rule]]\ntensor = 'blocks.*'\nweights = 'int4'\n",
        )
        .unwrap();
        let found = |name: &str| recipe.rule(name).map(|rule| (rule.weights, rule.input_bits));
        assert_eq!(found("blocks.0.att.key.weight"), Some((Weights::Int8, Some(9))));
        assert_eq!(found("blocks.10.att.key.weight"), Some((Weights::Int4, None)));
        assert_eq!(found("head.weight"), None);
        assert_eq!(Recipe::parse("").unwrap().rule("head.weight"), None);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| Recipe::parse(text).unwrap_err().to_string();
        let rule = |rest: &str| format!("[[rule]]\ntensor = 'head.weight'\n{rest}");
        assert!(error(&rule("weights = 'int5'")).contains("int5"));
        assert!(error(&rule("weights = 'int8'\nbits = 8")).contains("bits"));
        assert!(error(&rule("")).contains("weights"));
        let float = error(&rule("weights = 'f16'\ninput_bits = 8"));
        assert_eq!(float, "rule 1: the inputs of float weights are not quantised");
        assert_eq!(
            error(&rule("weights = 'int8'\ninput_bits = 16")),
            "rule 1: input_bits is 8 to 15"
        );
        assert!(
            error("[[rule]]\ntensor = '[a'\nweights = 'int8'").contains("\"[a\" is no pattern")
        );
    }

    #[test]
    fn an_idle_rule_is_a_mistake() {
        let recipe = Recipe::parse(
            "[[rule]]\ntensor = '*'\nweights = 'f32'\n[[rule]]\ntensor = 'head'\nweights = 'f32'\n",
        )
        .unwrap();
        let error = recipe.check(&["head.weight".into()]).unwrap_err();
        let expected =
            "rule 2: \"head\" matches none of the model's matrices; they are head.weight";
        assert_eq!(error.to_string(), expected);
        assert!(recipe.check(&["head".into()]).is_ok());
    }
}
