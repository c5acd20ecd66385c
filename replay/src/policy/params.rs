//! The parameters of a policy: names and texts, read once.

/// A parameter that a policy knows.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Name.
    pub name: &'static str,
    /// What it is when it is not given.
    pub default: &'static str,
    /// What it means, with its unit.
    pub help: &'static str,
}

/// Why a policy cannot be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadPolicy(pub String);

impl std::fmt::Display for BadPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadPolicy {}

/// Parameters as given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Params {
    given: Vec<(String, String)>,
}

impl Params {
    /// Reads `key=value,key=value`; a key alone means `key=true`.
    pub fn parse(text: &str) -> Result<Self, BadPolicy> {
        let mut params = Self::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, "true"));
            params.set(key.trim(), value.trim())?;
        }
        Ok(params)
    }

    /// Adds one.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), BadPolicy> {
        if self.given.iter().any(|(known, _)| known == key) {
            return Err(BadPolicy(format!("{key} is given twice; give it once")));
        }
        self.given.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Those given, in order.
    #[must_use]
    pub fn given(&self) -> &[(String, String)] {
        &self.given
    }

    /// Refuses what the policy does not know.
    pub(super) fn check(&self, policy: &str, known: &[Param]) -> Result<(), BadPolicy> {
        for (key, _) in &self.given {
            if known.iter().any(|param| param.name == key) {
                continue;
            }
            let names: Vec<&str> = known.iter().map(|param| param.name).collect();
            return Err(BadPolicy(if names.is_empty() {
                format!("{policy} has no parameters, {key} was given")
            } else {
                format!("{policy} does not know {key}; it knows {}", names.join(", "))
            }));
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.given.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// A whole number, if given, within a range.
    pub fn number(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, BadPolicy> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            BadPolicy(format!(
                "{key}={text} is not a whole number from {} to {}",
                range.start(),
                range.end()
            ))
        })
    }

    /// Whole numbers with slashes between, if given.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<u64>>, BadPolicy> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let numbers: Result<Vec<u64>, _> = text.split('/').map(str::parse).collect();
        numbers.map(Some).map_err(|_| {
            BadPolicy(format!("{key}={text} is not a list of numbers like 256/256/32"))
        })
    }

    /// One of these words, if given.
    pub fn word(&self, key: &str, words: &[&str]) -> Result<Option<&str>, BadPolicy> {
        match self.text(key) {
            Some(text) if !words.contains(&text) => {
                Err(BadPolicy(format!("{key}={text} is none of {}", words.join(", "))))
            }
            found => Ok(found),
        }
    }

    /// Yes or no, if given.
    pub fn truth(&self, key: &str) -> Result<Option<bool>, BadPolicy> {
        match self.text(key) {
            None => Ok(None),
            Some("true" | "yes" | "1") => Ok(Some(true)),
            Some("false" | "no" | "0") => Ok(Some(false)),
            Some(other) => Err(BadPolicy(format!("{key}={other} is neither yes nor no"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_wrong_ones_named() {
        let params = Params::parse("batch=31, high=400,last-resort").unwrap();
        assert_eq!(params.number("batch", 1..=100).unwrap(), Some(31));
        assert_eq!(params.number("low", 1..=100).unwrap(), None);
        assert_eq!(params.truth("last-resort").unwrap(), Some(true));
        let error = params.number("high", 1..=100).unwrap_err().to_string();
        assert!(error.contains("high=400") && error.contains("1 to 100"), "{error}");
        assert!(Params::parse("a=1,a=2").is_err());
        let known = [Param { name: "batch", default: "63", help: "" }];
        let error = params.check("percpu-fixed", &known).unwrap_err().to_string();
        assert!(error.contains("high") && error.contains("it knows batch"), "{error}");
        let ratios = Params::parse("lowmem_reserve_ratio=256/256/32").unwrap();
        assert_eq!(ratios.numbers("lowmem_reserve_ratio").unwrap(), Some(vec![256, 256, 32]));
    }
}
