//! Arguments that another one stands for.

use clap::error::Error;
use clap::{ArgMatches, Args, Command, FromArgMatches};

/// The arguments of `T`, all of them, unless `--input` is given, which excludes them.
#[derive(Debug)]
pub(super) struct Unless<T>(pub(super) Option<T>);

const OTHER: &str = "input";

impl<T: Args> Args for Unless<T> {
    fn augment_args(command: Command) -> Command {
        // By themselves, to know which they are.
        let own = T::augment_args(Command::new("own"));
        let change = |command: Command, arg: &clap::Arg| {
            let is_required = arg.is_required_set();
            command.mut_arg(arg.get_id().clone(), |arg| {
                let arg = arg.conflicts_with(OTHER);
                if is_required { arg.required(false).required_unless_present(OTHER) } else { arg }
            })
        };
        own.get_arguments().fold(T::augment_args(command), change)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: FromArgMatches> FromArgMatches for Unless<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = matches.contains_id(OTHER);
        Ok(Self(if given { None } else { Some(T::from_arg_matches(matches)?) }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
