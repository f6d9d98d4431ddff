"""A seeded fuzzer of all files that this package reads. The tests run a part of its cases.

    python -m tests.fuzz --cases=1000 --seed=1 --targets=pictures,coco

A target writes a valid file, damages it with a seeded generator, and reads it through a public
entry point. A case is a failure if

- the exception is not one that the command line prints as one line, or its message has several
  lines or does not name the damaged file;
- the reader accepts the file, but its result breaks the contract of the reader (boxes outside the
  image, label ids out of range, labels that are not text);
- the case takes more than 10 seconds, or 400 MB more memory than the cases before it;
- the process dies.

The cases of a target run in a child process. Files that the documents call trusted are not damaged:
the graphs of SavedModels and TFLite files, and the protobuf bytes of records (their features are).
"""
