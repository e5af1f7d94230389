//! A limit as a text of the command line: `name=reads,per=token,rate=100/1m,burst=20,on-outage=admit` or
//! `name=credits,initial=1000,refill=500/month,mode=add`. Read from flags and shown to people by `tokend plan`. Errors
//! repeat nothing of the text.

use std::time::Duration;

use tokend_client::proto::limit::Kind;
use tokend_client::proto::{
    CalendarPeriod, Credits, Limit, LimitSubject, OutageBehavior, RateLimit, Refill, RefillMode,
};

use crate::cli::times::parse_ttl;
use crate::config::DisplayDuration;

const SUBJECTS: [(&str, LimitSubject); 3] = [
    ("token", LimitSubject::Token),
    ("user", LimitSubject::User),
    ("organization", LimitSubject::Organization),
];

const OUTAGES: [(&str, OutageBehavior); 2] =
    [("deny", OutageBehavior::Deny), ("admit", OutageBehavior::Admit)];

const PERIODS: [(&str, CalendarPeriod); 5] = [
    ("hour", CalendarPeriod::Hour),
    ("day", CalendarPeriod::Day),
    ("week", CalendarPeriod::Week),
    ("month", CalendarPeriod::Month),
    ("year", CalendarPeriod::Year),
];

const MODES: [(&str, RefillMode); 2] = [("replace", RefillMode::Replace), ("add", RefillMode::Add)];

/// The parts of the text.
#[derive(Default)]
struct Parts<'a> {
    name: Option<&'a str>,
    per: Option<&'a str>,
    rate: Option<&'a str>,
    burst: Option<&'a str>,
    on_outage: Option<&'a str>,
    initial: Option<&'a str>,
    refill: Option<&'a str>,
    mode: Option<&'a str>,
}

/// Parses a limit. Its numbers are checked by the server, which names what is out of bounds.
pub(super) fn parse(text: &str) -> Result<Limit, &'static str> {
    let parts = split(text)?;
    let name = parts.name.ok_or("a limit needs name=NAME")?.to_owned();
    let per = parts.per.unwrap_or("token");
    let per = word(&SUBJECTS, per).ok_or("per is token, user or organization")?.into();
    let kind = match (parts.rate, parts.initial.or(parts.refill)) {
        (Some(rate), None) if parts.mode.is_none() => Kind::Rate(self::rate(rate, &parts)?),
        (None, Some(_)) if parts.burst.is_none() && parts.on_outage.is_none() => {
            Kind::Credits(credits(&parts)?)
        }
        _ => {
            return Err(
                "a limit has rate=NUMBER/DURATION, with burst and on-outage, or initial=NUMBER, with \
                        refill=NUMBER/PERIOD and mode",
            );
        }
    };
    Ok(Limit { name, per, kind: Some(kind) })
}

fn split(text: &str) -> Result<Parts<'_>, &'static str> {
    let mut parts = Parts::default();
    for part in text.split(',') {
        let (key, value) =
            part.split_once('=').ok_or("a limit consists of KEY=VALUE, with commas between")?;
        let place = match key {
            "name" => &mut parts.name,
            "per" => &mut parts.per,
            "rate" => &mut parts.rate,
            "burst" => &mut parts.burst,
            "on-outage" => &mut parts.on_outage,
            "initial" => &mut parts.initial,
            "refill" => &mut parts.refill,
            "mode" => &mut parts.mode,
            _ => return Err("the keys are name, per, rate, burst, on-outage, initial, refill and mode"),
        };
        if place.replace(value).is_some() {
            return Err("a key of a limit is given twice");
        }
    }
    Ok(parts)
}

fn rate(text: &str, parts: &Parts<'_>) -> Result<RateLimit, &'static str> {
    const RATE: &str = "a rate is NUMBER/DURATION, such as 100/1m";
    let (requests, period) = text.split_once('/').ok_or(RATE)?;
    let on_outage = parts.on_outage.map(|text| word(&OUTAGES, text).ok_or("on-outage is deny or admit"));
    Ok(RateLimit {
        requests: requests.parse().map_err(|_| RATE)?,
        period: Some(parse_ttl(period).map_err(|_| RATE)?),
        burst: number(parts.burst, "burst is a number")?,
        on_outage: on_outage.transpose()?.unwrap_or(OutageBehavior::Deny).into(),
    })
}

fn credits(parts: &Parts<'_>) -> Result<Credits, &'static str> {
    const REFILL: &str = "a refill is NUMBER/hour, /day, /week, /month or /year, such as 500/month";
    let mode = parts.mode.map(|text| word(&MODES, text).ok_or("mode is replace or add")).transpose()?;
    let refill = match parts.refill {
        None if mode.is_some() => return Err("mode needs refill=NUMBER/PERIOD"),
        None => None,
        Some(text) => {
            let (amount, period) = text.split_once('/').ok_or(REFILL)?;
            Some(Refill {
                amount: amount.parse().map_err(|_| REFILL)?,
                period: word(&PERIODS, period).ok_or(REFILL)?.into(),
                mode: mode.unwrap_or(RefillMode::Replace).into(),
            })
        }
    };
    Ok(Credits { initial: number(parts.initial, "initial is a number")?, refill })
}

fn number(text: Option<&str>, expected: &'static str) -> Result<i64, &'static str> {
    text.map_or(Ok(0), |text| text.parse().map_err(|_| expected))
}

fn word<T: Copy>(words: &[(&str, T)], text: &str) -> Option<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

/// Formats a limit as the text that [`parse`] reads.
pub(super) fn text(limit: &Limit) -> String {
    let of = |name: &str, value: &str| format!(",{name}={value}");
    let mut text = format!("name={}{}", limit.name, of("per", named(&SUBJECTS, limit.per())));
    match &limit.kind {
        Some(Kind::Rate(rate)) => {
            let period = rate.period.and_then(|period| Duration::try_from(period).ok()).unwrap_or_default();
            text.push_str(&of("rate", &format!("{}/{}", rate.requests, DisplayDuration(period))));
            text.push_str(&of("burst", &rate.burst.to_string()));
            text.push_str(&of("on-outage", named(&OUTAGES, rate.on_outage())));
        }
        Some(Kind::Credits(credits)) => {
            text.push_str(&of("initial", &credits.initial.to_string()));
            if let Some(refill) = &credits.refill {
                let every = named(&PERIODS, refill.period());
                text.push_str(&of("refill", &format!("{}/{every}", refill.amount)));
                text.push_str(&of("mode", named(&MODES, refill.mode())));
            }
        }
        None => {}
    }
    text
}

fn named<T: PartialEq + Copy>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, known)| *known == value).map_or("unknown", |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_shown_as_it_is_given() {
        for line in [
            "name=reads,per=token,rate=100/1m,burst=20,on-outage=admit",
            "name=all,per=organization,rate=1/31d,burst=1,on-outage=deny",
            "name=credits,per=user,initial=1000,refill=500/month,mode=add",
            "name=trial,per=token,initial=10",
        ] {
            assert_eq!(text(&parse(line).unwrap()), line);
        }
        let short = parse("rate=100/1m,name=reads").unwrap();
        assert_eq!(text(&short), "name=reads,per=token,rate=100/1m,burst=0,on-outage=deny");
        let refilled = parse("name=c,refill=5/hour").unwrap();
        assert_eq!(text(&refilled), "name=c,per=token,initial=0,refill=5/hour,mode=replace");
    }

    #[test]
    fn a_text_that_is_no_limit_is_refused_without_being_repeated() {
        for line in [
            "",
            "reads",
            "name=reads",
            "rate=1/1s",
            "name=secretword,rate=1",
            "name=r,rate=x/1m",
            "name=r,rate=1/month",
            "name=r,rate=1/1m,initial=5",
            "name=r,rate=1/1m,mode=add",
            "name=r,rate=1/1m,burst=x",
            "name=r,rate=1/1m,per=galaxy",
            "name=r,rate=1/1m,on-outage=maybe",
            "name=r,rate=1/1m,rate=2/1m",
            "name=r,initial=1,burst=2",
            "name=r,initial=1,mode=add",
            "name=r,initial=1,refill=1/1m",
            "name=r,initial=1,secretword=2",
        ] {
            let error = parse(line).unwrap_err();
            assert!(!error.contains("secretword"), "{line}");
        }
    }
}
