//! Rotations that nobody asks for: by the system, on the record, and each target for itself.

use std::sync::Arc;

use coffer_core::audit::RecordType;

use crate::bed::Bed;

fn due(bed: &Bed, target: &str, path: &str) {
    bed.database.due.lock().unwrap().insert((target.to_owned(), path.to_owned()));
}

#[tokio::test]
async fn what_is_due_is_done_by_the_system_and_on_the_record() {
    let bed = Bed::with_pods().await;
    due(&bed, "well", "rotate-role/a");
    due(&bed, "refusing", "rotate-role/b");
    bed.sweep().await;
    assert_eq!(bed.database.due.lock().unwrap().len(), 1, "one is done, one is due again");
    for (path, status) in [("database/rotate-role/a", 204), ("database/rotate-role/b", 503)] {
        let records: Vec<_> = bed.audit_records().into_iter().filter(|record| record.path == path).collect();
        let kinds: Vec<_> = records.iter().map(|record| record.kind).collect();
        assert_eq!(kinds, [RecordType::Intent, RecordType::Completion], "{path}");
        assert_eq!(records[0].request_id, records[1].request_id);
        assert!(records.iter().all(|record| record.display_name.as_deref() == Some("system")));
        assert_eq!((records[1].status, records[1].error.is_some()), (Some(status), status != 204));
    }
}

#[tokio::test]
async fn a_target_that_never_answers_holds_up_no_other() {
    let bed = Arc::new(Bed::with_pods().await);
    due(&bed, "stuck", "rotate-role/a");
    for number in 0..40 {
        due(&bed, "well", &format!("rotate-role/w{number}"));
        due(&bed, &format!("target-{number}"), &format!("rotate-role/t{number}"));
    }
    let sweeping = tokio::spawn({
        let bed = Arc::clone(&bed);
        async move { bed.sweep().await }
    });
    while bed.database.due.lock().unwrap().len() > 1 {
        bed.database.rotated.notified().await;
    }
    assert!(!sweeping.is_finished());
    bed.database.go.notify_one();
    sweeping.await.unwrap();
    assert!(bed.database.due.lock().unwrap().is_empty());
}
