-- A refusal by the rules of the version that ran ends with that version.
ALTER TABLE failed_versions ADD COLUMN running TEXT NOT NULL DEFAULT '';
