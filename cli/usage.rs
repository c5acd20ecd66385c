//! Command lines that are no command: help, the version, and mistakes.

use clap::error::ErrorKind;

use crate::exit::Answer;

/// Help and the version are answers; a mistake is told in one line.
pub(crate) fn answer(error: &clap::Error) -> anyhow::Result<Answer> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            error.print()?;
            Ok(Answer::Yes)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            anyhow::bail!("no command is given; see kmemlab --help")
        }
        _ => anyhow::bail!("{}; see kmemlab --help", first_line(&error.to_string())),
    }
}

/// What clap says before its tips and usage, with the list that belongs to it.
fn first_line(text: &str) -> String {
    let lines: Vec<&str> =
        text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = lines.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Args;

    fn told(args: &[&str]) -> String {
        let error = Args::try_parse_from(["kmemlab"].iter().chain(args)).unwrap_err();
        answer(&error).unwrap_err().to_string()
    }

    #[test]
    fn a_mistake_is_one_line_that_names_it() {
        assert_eq!(told(&[]), "no command is given; see kmemlab --help");
        assert_eq!(
            told(&["info"]),
            "the following required arguments were not provided: <NAME.kmt>; see kmemlab --help"
        );
        assert_eq!(
            told(&["tui", "x.kmt", "--view", "y"]),
            "invalid value 'y' for '--view <VIEW>' [possible values: overview, slabs, sites, \
             blocks, vmalloc, compare, latency]; see kmemlab --help"
        );
        assert!(told(&["info", "--jason"]).starts_with("unexpected argument '--jason' found;"));
    }
}
