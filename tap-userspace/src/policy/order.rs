//! Orders of processors that are known to hurt. Comes in: the pipelines; goes out: a sentence for each,
//! with the harm.
#![forbid(unsafe_code)]

use crate::config::{
    environment::Signal,
    pipelines::{Line, Pipelines},
    processors::Processor,
};

/// What is wrong with the orders of processors, each in one sentence without its full stop.
pub fn warnings(pipelines: &Pipelines) -> Vec<String> {
    let mut found = Vec::new();
    for signal in Signal::ALL {
        for line in pipelines.lines(signal) {
            found.extend(of(line).into_iter().map(|why| format!("Pipeline {}: {why}", line.name)));
        }
    }
    let samplers: Vec<&str> = pipelines.lines(Signal::Traces).iter().flat_map(tails).collect();
    for line in pipelines.lines(Signal::Logs) {
        for name in tails(line).filter(|name| !samplers.contains(name)) {
            found.push(format!(
                "Pipeline {}: no pipeline of traces has `{name}`, so nothing is decided there: log \
                 records only wait, and then all go on; name it there too, or leave it out here",
                line.name
            ));
        }
    }
    found
}

fn tails(line: &Line) -> impl Iterator<Item = &str> {
    let is_tail = |processor: &Processor| matches!(processor, Processor::TailSampling(_));
    line.processors.iter().filter(move |(_, it)| is_tail(it)).map(|(name, _)| &**name)
}

/// What a processor is to the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It refuses what there is no memory for.
    Limits,
    /// It leaves single items out, each by itself.
    Samples,
    /// It holds whole traces, and leaves some out.
    Tail,
    /// It brings items together.
    Batches,
    /// It takes single items out.
    Filters,
    /// It takes out or covers what may be secret.
    Redacts,
    /// Something else.
    Other,
}

fn role(name: &str, processor: &Processor) -> Role {
    match processor {
        Processor::MemoryLimiter(_) => Role::Limits,
        Processor::ProbabilisticSampler(_) => Role::Samples,
        Processor::TailSampling(_) => Role::Tail,
        Processor::Batch(_) => Role::Batches,
        Processor::Filter(_) => Role::Filters,
        #[allow(unreachable_patterns, reason = "there may be others")]
        _ => match name.split('/').next() {
            Some("redaction" | "attributes" | "transform") => Role::Redacts,
            _ => Role::Other,
        },
    }
}

/// What is wrong within one pipeline: each pair of roles once.
fn of(line: &Line) -> Vec<String> {
    let all: Vec<(&str, Role)> =
        line.processors.iter().map(|(name, it)| (&**name, role(name, it))).collect();
    let mut found = Vec::new();
    if let Some((at, (name, _))) =
        all.iter().enumerate().find(|(_, (_, role))| *role == Role::Limits)
        && at > 0
    {
        found.push(format!(
            "`{name}` is not the first processor: what stands before it goes on filling memory while \
             it refuses items; put it first"
        ));
    }
    let mut told = Vec::new();
    for (at, (first, before)) in all.iter().enumerate() {
        for (second, after) in &all[at + 1..] {
            let Some(harm) = harm(*before, *after) else { continue };
            if !told.contains(&(*before, *after)) {
                told.push((*before, *after));
                found.push(format!("`{first}` stands before `{second}`: {harm}"));
            }
        }
    }
    found
}

/// What comes of one before the other.
const fn harm(first: Role, second: Role) -> Option<&'static str> {
    match (first, second) {
        (Role::Batches, Role::Samples | Role::Tail | Role::Filters) => Some(
            "batches are made before items are taken out of them, so elsewhere they would leave small \
             (tap makes them last in any case); put the batch last",
        ),
        (Role::Samples, Role::Tail) => Some(
            "traces that the share leaves out are gone before a policy sees them, errors and slow \
             ones too; leave it out, or use a policy of type `probabilistic`",
        ),
        (Role::Tail, Role::Samples) => Some(
            "traces that a policy has kept are left out again, errors and slow ones too; use a policy \
             of type `probabilistic`",
        ),
        (Role::Tail, Role::Redacts) => Some(
            "secrets wait in memory as long as the sampler decides, and its policies see them; put \
             it before the sampler, unless a policy asks for what it takes out",
        ),
        (Role::Samples, Role::Redacts) => Some(
            "where the share is chosen by an attribute, that is one which is not yet covered; put it \
             before the sampler",
        ),
        (Role::Tail, Role::Filters) => Some(
            "what the filter takes out has waited in memory, and counted in the decision on its \
             trace; put the filter first, unless a policy asks for these spans",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{environment::Environment, file::Config};

    fn told(traces: &str, logs: &str) -> Vec<String> {
        let yaml = format!(
            "exporters: {{ console: }}\n\
             processors:\n  memory_limiter: {{ check_interval: 1s, limit_mib: 100 }}\n  batch:\n  \
             filter:\n  probabilistic_sampler:\n  \
             tail_sampling: {{ policies: [{{ name: all, type: always_sample }}] }}\n\
             service: {{ pipelines: {{ traces: {{ processors: [{traces}], exporters: [console] }}, \
             logs: {{ processors: [{logs}], exporters: [console] }} }} }}\n"
        );
        let config = Config::parse(&yaml).unwrap();
        let environment = Environment::read_over(std::iter::empty::<(&str, &str)>(), &config);
        warnings(&Pipelines::resolve(&config, &environment.unwrap()).unwrap())
    }

    #[test]
    fn orders_that_hurt_are_told_with_the_harm() {
        for (traces, logs, expected) in [
            ("", "", &[][..]),
            ("memory_limiter, filter, tail_sampling, batch", "memory_limiter, tail_sampling", &[]),
            ("memory_limiter, filter, probabilistic_sampler, batch", "filter", &[]),
            ("filter, memory_limiter", "", &["`memory_limiter` is not the first"]),
            ("batch, tail_sampling", "", &["`batch` stands before `tail_sampling`"]),
            (
                "batch, probabilistic_sampler, filter",
                "",
                &[
                    "`batch` stands before `probabilistic_sampler`",
                    "`batch` stands before `filter`",
                ],
            ),
            ("probabilistic_sampler, tail_sampling", "", &["gone before a policy sees them"]),
            ("tail_sampling, probabilistic_sampler", "", &["left out again"]),
            ("tail_sampling, filter", "", &["waited in memory"]),
            ("", "tail_sampling", &["Pipeline logs: no pipeline of traces has `tail_sampling`"]),
        ] {
            let told = told(traces, logs);
            assert_eq!(told.len(), expected.len(), "{traces}; {logs}: {told:?}");
            for (told, part) in told.iter().zip(expected) {
                assert!(told.contains(part), "{traces}; {logs}: {told}");
            }
        }
    }

    #[test]
    fn what_covers_secrets_comes_before_what_holds_them() {
        for (first, second, hurts) in [
            (Role::Tail, Role::Redacts, true),
            (Role::Samples, Role::Redacts, true),
            (Role::Redacts, Role::Tail, false),
            (Role::Tail, Role::Batches, false),
        ] {
            assert_eq!(harm(first, second).is_some(), hurts, "{first:?} {second:?}");
        }
    }
}
