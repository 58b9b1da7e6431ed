//! Objects in what is Google Cloud Storage to tap: the request and its signed token, a store that is
//! busy, and one that refuses.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    programs::{
        gcs::{ACCOUNT, Gcs, KEY},
        scripts::{Server, echo_server},
    },
    stage::apart,
    tap::Launch,
    wait::{PATIENCE, until_true},
};

use super::objects::{SOON, capturing, curl, event, items, records};

/// Makes three exchanges with `server`: three objects of each end, by what their records say.
fn exchanges(tap: &tests::tap::Tap, server: &Server) -> Result<Vec<[String; 2]>> {
    (0..3).try_for_each(|_| curl(server.port, "/plain", &[]))?;
    let records = records(tap, server.port, 3)?;
    records
        .iter()
        .map(|record| {
            let url = event(record, "url");
            let key = url.strip_prefix("gs://captures/").with_context(|| url.to_owned())?;
            Ok([format!("/captures/{key}"), event(record, "digest").to_owned()])
        })
        .collect()
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_default()
}

#[test]
fn google_gets_each_object_by_a_signed_token_when_it_is_no_longer_busy() {
    apart(|| {
        let (gcs, server) = (Gcs::start(&["503", "429", "500", "408", "200"])?, echo_server()?);
        let tap = capturing(&gcs.store(), &format!("  level: headers\n{SOON}")).start()?;
        let told = exchanges(&tap, &server)?;
        until_true("all objects", PATIENCE, || items(&tap, "exported", "gcs") == 6)?;
        let book = tap.stop()?.check()?.items["objects/gcs"].clone();
        ensure!((book["produced"], book["exported"]) == (6, 6), "{book:?}");
        let requests = gcs.requests(10)?;
        assert_eq!(requests.len(), 10, "{requests:#?}");
        for request in &requests {
            assert_eq!(
                (text(request, "method"), text(request, "type")),
                ("PUT", "application/json")
            );
            let token = &request["token"];
            assert_eq!(token["signed"], true, "{request:#}");
            assert_eq!((text(&token["head"], "alg"), text(&token["head"], "kid")), ("RS256", KEY));
            let claims = &token["claims"];
            assert_eq!([text(claims, "iss"), text(claims, "sub")], [ACCOUNT; 2]);
            let [from, until] = ["iat", "exp"].map(|key| claims[key].as_u64().unwrap_or_default());
            ensure!(until == from + 3600 && text(claims, "scope").contains("cloud-platform"));
        }
        let of = |taken: bool| requests.iter().filter(move |it| (it["fate"] == "200") == taken);
        for [path, digest] in &told {
            let stored = of(true).filter(|it| text(it, "path") == path).collect::<Vec<_>>();
            ensure!(stored.len() == 1, "{path}: {stored:#?}");
            assert_eq!(text(stored[0], "sha256"), digest);
        }
        Ok(())
    });
}

/// What was answered with a success is stored, whatever that lacks.
#[test]
fn google_is_not_asked_again_for_what_it_has_taken_or_refused() {
    apart(|| {
        let server = echo_server()?;
        for (fate, term, said) in [
            ("bare", "exported", None),
            ("403", "rejected", Some("403")),
            ("404", "rejected", Some("404")),
        ] {
            let gcs = Gcs::start(&[fate])?;
            let tap = capturing(&gcs.store(), &format!("  level: summary\n{SOON}")).start()?;
            exchanges(&tap, &server)?;
            until_true("all to have an end", PATIENCE, || items(&tap, term, "gcs") == 6)
                .with_context(|| format!("{fate}: {}", tap.log().text()))?;
            let ended = tap.stop()?;
            let book = ended.check()?.items["objects/gcs"].clone();
            ensure!((book["produced"], book[term]) == (6, 6), "{fate}: {book:?}");
            assert_eq!(gcs.requests(6)?.len(), 6, "{fate}");
            let complained = ended.log().contains("The store refuses objects.");
            ensure!(complained == said.is_some(), "{}", ended.log());
            ensure!(said.is_none_or(|said| ended.log().contains(said)), "{}", ended.log());
        }
        Ok(())
    });
}

#[test]
fn check_tries_google_and_takes_the_object_away_again() {
    apart(|| {
        let gcs = Gcs::start(&["200"])?;
        let config = format!("http_capture: {{ store: {}, level: full }}\n", gcs.store());
        let text = Launch::of(&["check"]).config(&config).run()?.stdout.join("\n");
        ensure!(text.contains("takes objects"), "{text}");
        let requests = gcs.requests(2)?;
        let methods: Vec<_> = requests.iter().map(|it| self::text(it, "method")).collect();
        assert_eq!(methods, ["PUT", "DELETE"]);
        assert_eq!(requests[0]["path"], requests[1]["path"]);
        Ok(())
    });
}
