//! The recorded kernel's bits of the allocation flags, read from its own `print fmt`.
//!
//! The bits moved between releases (`__GFP_NOWARN` is 0x200 in 5.10 and 0x2000 in 6.18), and the
//! kernel prints its table with every event that has flags.

use crate::manifest::Manifest;

/// The flags that the slab and vmalloc layers are recognised by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GfpBits {
    /// `__GFP_DMA`.
    pub dma: u32,
    /// `__GFP_HIGHMEM`.
    pub highmem: u32,
    /// `__GFP_MOVABLE`.
    pub movable: u32,
    /// `__GFP_RECLAIMABLE`.
    pub reclaimable: u32,
    /// `__GFP_ZERO`.
    pub zero: u32,
    /// `__GFP_DIRECT_RECLAIM`.
    pub direct_reclaim: u32,
    /// `__GFP_KSWAPD_RECLAIM`.
    pub kswapd_reclaim: u32,
    /// `__GFP_WRITE`.
    pub write: u32,
    /// `__GFP_NOWARN`.
    pub nowarn: u32,
    /// `__GFP_NORETRY`.
    pub noretry: u32,
    /// `__GFP_COMP`.
    pub comp: u32,
    /// `__GFP_NOMEMALLOC`.
    pub nomemalloc: u32,
    /// `__GFP_HARDWALL`.
    pub hardwall: u32,
    /// `__GFP_ACCOUNT`.
    pub account: u32,
}

impl Default for GfpBits {
    /// The bits of 6.18 (`include/linux/gfp_types.h`).
    fn default() -> Self {
        Self {
            dma: 1,
            highmem: 1 << 1,
            movable: 1 << 3,
            reclaimable: 1 << 4,
            zero: 1 << 8,
            direct_reclaim: 1 << 10,
            kswapd_reclaim: 1 << 11,
            write: 1 << 12,
            nowarn: 1 << 13,
            noretry: 1 << 16,
            comp: 1 << 18,
            nomemalloc: 1 << 19,
            hardwall: 1 << 20,
            account: 1 << 22,
        }
    }
}

impl GfpBits {
    /// The bits of a recording's kernel, where its page events print them.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let named = |name: &str| manifest.tracepoints.iter().find(|it| it.name == name);
        let with_flags = ["kmem:mm_page_alloc", "kmem:kmalloc", "kmem:kmem_cache_alloc"];
        let format = with_flags.iter().find_map(|name| named(name));
        format.map_or_else(Self::default, |record| Self::parse(&record.format))
    }

    /// The bits as a `print fmt` names them; those of 6.18 for names that it lacks.
    #[must_use]
    pub fn parse(format: &str) -> Self {
        let mut bits = Self::default();
        let wanted: [(&str, &mut u32); 14] = [
            ("__GFP_DMA", &mut bits.dma),
            ("__GFP_HIGHMEM", &mut bits.highmem),
            ("__GFP_MOVABLE", &mut bits.movable),
            ("__GFP_RECLAIMABLE", &mut bits.reclaimable),
            ("__GFP_ZERO", &mut bits.zero),
            ("__GFP_DIRECT_RECLAIM", &mut bits.direct_reclaim),
            ("__GFP_KSWAPD_RECLAIM", &mut bits.kswapd_reclaim),
            ("__GFP_WRITE", &mut bits.write),
            ("__GFP_NOWARN", &mut bits.nowarn),
            ("__GFP_NORETRY", &mut bits.noretry),
            ("__GFP_COMP", &mut bits.comp),
            ("__GFP_NOMEMALLOC", &mut bits.nomemalloc),
            ("__GFP_HARDWALL", &mut bits.hardwall),
            ("__GFP_ACCOUNT", &mut bits.account),
        ];
        for (name, bit) in wanted {
            if let Some(found) = entry(format, name) {
                *bit = found;
            }
        }
        bits
    }
}

/// The value of `{ EXPRESSION, "NAME" }`.
fn entry(format: &str, name: &str) -> Option<u32> {
    let quoted = format!("\"{name}\"");
    let end = format.find(&quoted)?;
    let start = format[..end].rfind('{')?;
    let expression = format[start + 1..end].trim().trim_end_matches(',');
    u32::try_from(Expression::value(expression)?).ok()
}

/// A constant expression as a `print fmt` holds it: numbers, `<<`, `|`, `&`, `~`, casts.
struct Expression<'a> {
    tokens: Vec<&'a str>,
    at: usize,
}

impl<'a> Expression<'a> {
    fn value(text: &'a str) -> Option<u64> {
        let mut expression = Self { tokens: tokens(text), at: 0 };
        let value = expression.any_of()?;
        (expression.at == expression.tokens.len()).then_some(value)
    }

    fn next_is(&mut self, token: &str) -> bool {
        let is = self.tokens.get(self.at) == Some(&token);
        self.at += usize::from(is);
        is
    }

    fn any_of(&mut self) -> Option<u64> {
        let mut value = self.all_of()?;
        while self.next_is("|") {
            value |= self.all_of()?;
        }
        Some(value)
    }

    fn all_of(&mut self) -> Option<u64> {
        let mut value = self.shifted()?;
        while self.next_is("&") {
            value &= self.shifted()?;
        }
        Some(value)
    }

    fn shifted(&mut self) -> Option<u64> {
        let mut value = self.one()?;
        while self.next_is("<<") {
            value = value.checked_shl(u32::try_from(self.one()?).ok()?)?;
        }
        Some(value)
    }

    fn one(&mut self) -> Option<u64> {
        if self.next_is("~") {
            return self.one().map(|value| !value);
        }
        if self.next_is("(") {
            if self.tokens.get(self.at) == Some(&")") {
                // What is left of a cast whose words were passed over.
                self.at += 1;
                return self.one();
            }
            let value = self.any_of()?;
            return self.next_is(")").then_some(value);
        }
        let token = *self.tokens.get(self.at)?;
        self.at += 1;
        let digits = token.trim_end_matches(['u', 'U', 'l', 'L']);
        match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => digits.parse().ok(),
        }
    }
}

/// Tokens without the words of casts (`unsigned long`, `gfp_t`).
fn tokens(text: &str) -> Vec<&str> {
    let mut list = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("<<") {
            2
        } else if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        if !(first.is_alphabetic() || first == '_') {
            list.push(&rest[..length]);
        }
        rest = rest[length..].trim_start();
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_the_kernel_s_table_are_read() {
        let new = r#"__print_flags(REC->gfp_flags, "|",
            {( unsigned long)(( gfp_t)((((1UL))) << (10))|((((1UL))) << (11))), "__GFP_RECLAIM"},
            {( unsigned long)(( gfp_t)((((1UL))) << (15))), "__GFP_NOWARN"},
            {( unsigned long)(( gfp_t)((((1UL))) << (8))), "__GFP_ZERO"})"#;
        let bits = GfpBits::parse(new);
        assert_eq!((bits.nowarn, bits.zero), (1 << 15, 1 << 8));
        assert_eq!(bits.comp, GfpBits::default().comp, "what is not told is as in 6.18");
        let old = r#"{(unsigned long)((gfp_t)0x200u), "__GFP_NOWARN"}, {0x40u, "__GFP_IO"}"#;
        assert_eq!(GfpBits::parse(old).nowarn, 0x200);
        assert_eq!(entry(new, "__GFP_RECLAIM"), Some(0xc00));
    }

    #[test]
    fn nonsense_leaves_the_bits_alone() {
        for text in ["", "{, \"__GFP_ZERO\"}", "{(1 << , \"__GFP_ZERO\"}", "\"__GFP_ZERO\""] {
            assert_eq!(GfpBits::parse(text), GfpBits::default(), "{text}");
        }
    }
}
