"""What leaves a run for other programs: adapters, merged models, data sets, jobs, and the cards that go with them."""
