//! The state machine, walked at random and in the cases that matter.

use super::*;
use proptest::prelude::*;
use std::time::UNIX_EPOCH;

fn init() -> ProcessId {
    ProcessId { boot_id: "b".into(), pid: 7, start_ticks: 1 }
}

fn requests() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(Request::Start),
        Just(Request::Stop),
        Just(Request::Restart),
        Just(Request::Kill),
        Just(Request::Pause),
        Just(Request::Unpause),
        any::<bool>().prop_map(|force| Request::Remove { force }),
    ]
}

/// What the world does by itself.
fn facts() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Started { init: init(), at: UNIX_EPOCH }),
        Just(Event::StartFailed(Failure { code: 127, message: "no".into() })),
        any::<bool>().prop_map(Event::Frozen),
        any::<bool>().prop_map(Event::Thawed),
        (0..256).prop_map(|code| Event::Ended(ExitRecord { code, oom_killed: false, at: UNIX_EPOCH })),
        Just(Event::Lost { error: "gone".into(), at: UNIX_EPOCH }),
        Just(Event::Deadline),
        Just(Event::RemoveFailed("busy".into())),
    ]
}

/// The event that the actor makes of an accepted request.
fn event(state: &State, request: Request) -> Event {
    let stop = |after| Event::Stop { signal: 15, kill_at: Some(UNIX_EPOCH), after };
    match request {
        Request::Start => Event::Start,
        Request::Stop => stop(After::Settle),
        Request::Restart if state.flags().running => stop(After::Start),
        Request::Restart => Event::Start,
        Request::Kill => Event::Signal { signal: 9, ends: true },
        Request::Pause => Event::Pause,
        Request::Unpause => Event::Resume,
        Request::Remove { .. } if state.is_running() => stop(After::Remove),
        _ => Event::Remove,
    }
}

fn policies() -> impl Strategy<Value = Policy> {
    let restart = prop_oneof![
        Just(RestartPolicy::No),
        Just(RestartPolicy::Always),
        Just(RestartPolicy::UnlessStopped),
        (0u32..3).prop_map(RestartPolicy::OnFailure),
    ];
    (any::<bool>(), restart).prop_map(|(auto_remove, restart)| Policy {
        auto_remove: auto_remove && restart == RestartPolicy::No,
        restart,
    })
}

proptest! {
    #[test]
    fn accepted_requests_always_have_a_step_and_removal_is_final(
        policy in policies(),
        moves in proptest::collection::vec(prop_oneof![requests().prop_map(Ok), facts().prop_map(Err)], 0..60),
    ) {
        let mut state = State::Created { failure: None };
        let mut removing = false;
        for next in moves {
            let event = match next {
                Ok(request) => match admit(&state, request, "id", "name") {
                    Admission::Accept => event(&state, request),
                    _ => continue,
                },
                Err(fact) => fact,
            };
            let asked = !matches!(
                event,
                Event::Started { .. } | Event::StartFailed(_) | Event::Ended(_) | Event::Lost { .. }
                    | Event::RemoveFailed(_)
            );
            match step(state.clone(), event.clone(), policy) {
                Ok((after, effects)) => {
                    let launches = effects.contains(&Effect::Launch);
                    let starting = |state: &State| matches!(state, State::Starting { .. });
                    prop_assert_eq!(launches, starting(&after) && !starting(&state));
                    if effects.contains(&Effect::Remove) {
                        removing = true;
                    }
                    if state.is_running() && !after.is_running() {
                        prop_assert!(effects.contains(&Effect::Release), "{:?}", event);
                    }
                    state = after;
                }
                Err(denied) => prop_assert!(!asked, "{denied}"),
            }
            prop_assert_eq!(removing, matches!(state, State::Removing { .. }));
            let flags = state.flags();
            prop_assert!(!flags.paused || flags.running);
            prop_assert!(!(flags.dead && flags.running));
            prop_assert_eq!(flags.pid != 0, state.is_running());
            let json = serde_json::to_string(&state).expect("a state serialises");
            prop_assert_eq!(serde_json::from_str::<State>(&json).expect("and comes back"), state.clone());
        }
    }
}

#[test]
fn a_forced_removal_is_not_taken_back_by_a_stop() {
    let run = Run { init: init(), started_at: UNIX_EPOCH, phase: Phase::Active, by_user: false, restarts: 0 };
    let policy = Policy { auto_remove: false, restart: RestartPolicy::Always };
    let stop =
        |after, at| Event::Stop { signal: 15, kill_at: Some(UNIX_EPOCH + Duration::from_secs(at)), after };
    let (state, _) = step(State::Running(run), stop(After::Remove, 5), policy).unwrap();
    let (state, _) = step(state, stop(After::Settle, 9), policy).unwrap();
    assert_eq!(state.deadline(), Some(UNIX_EPOCH + Duration::from_secs(5)));
    let end = ExitRecord { code: 143, oom_killed: false, at: UNIX_EPOCH };
    let (state, effects) = step(state, Event::Ended(end), policy).unwrap();
    assert!(matches!(state, State::Removing { .. }) && effects.contains(&Effect::Remove));
}

#[test]
fn back_off_doubles_and_starts_over_after_ten_seconds() {
    let exit = |seconds, restarts| Exit {
        code: 1,
        oom_killed: false,
        error: None,
        started_at: UNIX_EPOCH,
        finished_at: UNIX_EPOCH + Duration::from_secs(seconds),
        by_user: false,
        restarts,
    };
    assert_eq!(back_off(&exit(1, 0)), (Duration::from_millis(100), 1));
    assert_eq!(back_off(&exit(1, 3)), (Duration::from_millis(800), 4));
    assert_eq!(back_off(&exit(1, 50)), (Duration::from_secs(60), 51));
    assert_eq!(back_off(&exit(10, 50)), (Duration::from_millis(100), 51));
}
