-- What a service of the first schema leaves behind, for both databases.
INSERT INTO datasets (id, created_by, name, version, filename, suffix, sha256, bytes,
  text_column, label_column, rows, profile, created_at)
VALUES ('00000000000000000000000000000001', '00000000000000000000000000000000', 'mails', 1,
  'mails.csv', '.csv', 'cd', 2000000000, 'body', 'kind', 3, '{"rows": 3}', 1.5);

INSERT INTO artifacts (id, job_id, kind, key, manifest_sha256, bytes, created_at)
VALUES ('00000000000000000000000000000002', '00000000000000000000000000000012', 'model',
  'jobs/12/a2', 'ef', 90000000, 2.5);

INSERT INTO jobs (id, created_by, metadata, method, lane, priority, spec, spec_version, spec_sha256,
  dataset_ids, base, plan, state, run_after, attempt, worker, lease_expires_at,
  cancel_requested_at, failures_counted, step, stream_seq, summary, artifact_id, created_at,
  started_at, finished_at)
VALUES
  ('00000000000000000000000000000010', '00000000000000000000000000000000', '{"team": "a"}', 'lora',
   'cpu', 3, '{"seed": 7}', 1, 'ab', '{"all": "1"}', 'minilm-l6', '{}', 'queued', 1000.5, 0, NULL,
   NULL, NULL, 0, 0, 0, NULL, NULL, 1000.25, NULL, NULL),
  ('00000000000000000000000000000011', '00000000000000000000000000000000', '{}', 'full',
   'gpu', 0, '{"seed": 8}', 1, 'ab', '{}', 'minilm-l6', '{}', 'running', 1000.5, 2, 'alice',
   1060.0, 1050.0, 1, 5, 4, NULL, NULL, 1000.25, 1001.0, NULL),
  ('00000000000000000000000000000012', '00000000000000000000000000000000', '{}', 'lora',
   'cpu', 0, '{"seed": 9}', 1, 'ab', '{}', 'minilm-l6', '{}', 'succeeded', 1000.5, 2, NULL,
   NULL, NULL, 1, 5, 4, '{"test": {"accuracy": 0.75}}', '00000000000000000000000000000002',
   1000.25, 1001.0, 1100.0);

INSERT INTO attempts (job_id, attempt, worker, host, pid, environment, started_at, ended_at,
  outcome, last_step)
VALUES
  ('00000000000000000000000000000011', 1, 'alice', 'there', 11, '{"boot_id": "b"}', 1001, 1002,
   'lost', 3),
  ('00000000000000000000000000000011', 2, 'alice', 'there', 11, '{"boot_id": "b"}', 1003, NULL,
   NULL, 0),
  ('00000000000000000000000000000012', 1, 'bob', 'there', 12, '{"boot_id": "b"}', 1001, 1002,
   'failed', 3),
  ('00000000000000000000000000000012', 2, 'bob', 'there', 12, '{"boot_id": "b"}', 1003, 1100,
   'succeeded', 5);

INSERT INTO job_events (job_id, seq, attempt, kind, level, message, data, at)
VALUES
  ('00000000000000000000000000000011', 1, 1, 'started', 'info', 'Attempt 1 started.', '{}', 1001),
  ('00000000000000000000000000000011', 2, 1, 'requeued', 'warning', 'Lost.', '{}', 1002),
  ('00000000000000000000000000000012', 1, 1, 'started', 'info', 'Attempt 1 started.', '{}', 1001),
  ('00000000000000000000000000000012', 2, 2, 'succeeded', 'info', 'Succeeded.', '{}', 1100);

INSERT INTO metric_points (job_id, seq, attempt, split, name, step, epoch, value, nonfinite, at)
VALUES
  ('00000000000000000000000000000012', 3, 2, 'train', 'loss', 5, 0.5, 0.1, FALSE, 1005),
  ('00000000000000000000000000000012', 4, 2, 'train', 'grad_norm', 5, 0.5, NULL, TRUE, 1005);

INSERT INTO registered_models (id, name, last_number, created_at)
VALUES ('00000000000000000000000000000003', 'tone', 1, 3.5);

INSERT INTO model_versions (id, model_id, number, artifact_id, job_id, base, method, metrics,
  created_at)
VALUES ('00000000000000000000000000000004', '00000000000000000000000000000003', 1,
  '00000000000000000000000000000002', '00000000000000000000000000000012', 'minilm-l6', 'lora',
  '{"accuracy": 0.75}', 4.5);

INSERT INTO model_aliases (model_id, alias, version_id, moved_at)
VALUES ('00000000000000000000000000000003', 'production', '00000000000000000000000000000004', 5.5);

INSERT INTO workers (id, host, boot_id, pid, pid_start, seen_at, draining)
VALUES ('alice', 'there', 'b', 11, 111, 1055.0, FALSE);
