"""Validates TOML files against the schema that `jobwatch config schema` or `vendor schema` prints.

Reads JSON from standard input: {"schema": {}, "files": [{"name": "", "text": "", "valid": true}]}.
Prints a line for each file, and "all good" if each is as valid as it should be.
"""

import json
import sys
import tomllib

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

given = json.load(sys.stdin)
schema = given["schema"]
assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"], schema["$schema"]
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
failures = 0
for file in given["files"]:
    errors = list(validator.iter_errors(tomllib.loads(file["text"])))
    why = f"{best_match(errors).json_path}: {best_match(errors).message}" if errors else "valid"
    good = file["valid"] == (not errors)
    failures += not good
    print("ok" if good else "FAILED", file["name"], why[:200])
print("all good" if not failures else f"{failures} failed")
sys.exit(failures > 0)
