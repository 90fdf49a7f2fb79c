//! The events of a job, as lines of JSON.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::channel::{Channel, SendError, Sender};
use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use super::job::Course;
use crate::protocol::{Event, EventLine};

/// A line comes at least so often.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The events of a course of so many steps, from number `from` on, until its end.
pub fn stream(course: watch::Receiver<Course>, steps: usize, from: u64) -> Channel<Bytes, Infallible> {
    let (sender, body) = Channel::new(1);
    tokio::spawn(async move {
        // A client that has gone is none that has to be told.
        let _ = tell(course, steps, from, sender).await;
    });
    body
}

async fn tell(
    mut course: watch::Receiver<Course>,
    steps: usize,
    mut from: u64,
    mut sender: Sender<Bytes, Infallible>,
) -> Result<(), SendError> {
    loop {
        let lines = course.borrow_and_update().events(from, steps);
        for line in lines {
            let is_end = line.event.is_terminal();
            from = line.n.saturating_add(1);
            sender.send_data(encoded(&line)).await?;
            if is_end {
                return Ok(());
            }
        }
        match timeout(HEARTBEAT, course.changed()).await {
            Ok(Ok(())) => {}
            // The daemon stops: the job goes on when it has started anew.
            Ok(Err(_)) => return Ok(()),
            Err(_) => {
                let line = EventLine { n: from.saturating_sub(1), event: Event::Heartbeat };
                sender.send_data(encoded(&line)).await?;
            }
        }
    }
}

fn encoded(line: &EventLine) -> Bytes {
    let mut bytes = serde_json::to_vec(line).expect("an event has string keys");
    bytes.push(b'\n');
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::record::Outcome;
    use http_body_util::BodyExt as _;

    async fn lines(body: Channel<Bytes, Infallible>) -> Vec<EventLine> {
        let bytes = body.collect().await.unwrap().to_bytes();
        bytes
            .split(|&b| b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect()
    }

    #[test]
    fn a_watcher_sees_each_step_once_and_then_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let sender = watch::Sender::new(Course::default());
            let body = stream(sender.subscribe(), 3, 0);
            let watcher = tokio::spawn(lines(body));
            for step in 1..=3 {
                sender.send_modify(|course| course.step = step);
                tokio::task::yield_now().await;
            }
            let outcome = Outcome::Done { sha256: "00".into(), bytes: 1 };
            sender.send_modify(|course| course.outcome = Some(outcome));
            let numbers: Vec<u64> = watcher.await.unwrap().iter().map(|line| line.n).collect();
            assert_eq!(numbers, [2, 4, 6, 8]);
        });
    }
}
