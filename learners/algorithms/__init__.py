"""The learners: MAASN-DA, PPO, values of node sets, regression in hindsight."""
