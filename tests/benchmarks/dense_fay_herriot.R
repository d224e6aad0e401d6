# A stand-in for what small-area programs in R do for one Fay-Herriot model by REML; it is none of them. Fisher scoring
# with the m x m projection formed and squared in every round, to a relative change of 1e-4, and the terms of the mean
# squared error area by area. Usage: Rscript dense_fay_herriot.R data.csv rounds
# Prints seconds a call, median: from arrays, and from data frame and formula.

fit <- function(y, X, D, precision = 1e-4, most = 100) {
  A <- median(D)
  for (k in seq_len(most)) {
    w <- 1 / (A + D)
    WX <- w * X
    P <- diag(w) - WX %*% solve(crossprod(X, WX)) %*% t(WX)
    Py <- P %*% y
    step <- (sum(Py^2) - sum(diag(P))) / sum(diag(P %*% P))
    A <- A + step
    if (abs(step) < precision * abs(A)) break
  }
  A <- max(A, 0)
  w <- 1 / (A + D)
  C <- solve(crossprod(X, w * X))
  beta <- C %*% crossprod(X, w * y)
  gamma <- A * w
  synthetic <- X %*% beta
  v <- 2 / sum(w^2)
  mse <- numeric(length(y))
  for (i in seq_along(y)) {
    x <- X[i, , drop = FALSE]
    mse[i] <- gamma[i] * D[i] + (1 - gamma[i])^2 * x %*% C %*% t(x) + 2 * D[i]^2 * w[i]^3 * v
  }
  list(A = A, beta = beta, se = sqrt(diag(C)), eblup = synthetic + gamma * (y - synthetic), mse = mse)
}

whole <- function(formula, data) {
  frame <- model.frame(formula, data)
  fit(model.response(frame), model.matrix(formula, frame), data$D)
}

arguments <- commandArgs(trailingOnly = TRUE)
data <- read.csv(arguments[1])
rounds <- as.integer(arguments[2])
repeats <- if (nrow(data) < 200) 50 else 1
formula <- y ~ x0 + x1 + x2 + x3
X <- model.matrix(formula, data)
seconds <- function(call) {
  if (repeats > 1) for (k in 1:20) call()
  now <- function() proc.time()[["elapsed"]]
  median(sapply(seq_len(rounds), function(i) { t <- now(); for (k in seq_len(repeats)) call(); (now() - t) / repeats }))
}
cat(seconds(function() fit(data$y, X, data$D)), seconds(function() whole(formula, data)))
