"""One form for what is published: estimates of areas, the joint covariance of their errors, and their distribution."""
