"""`neft-zoo doctor`: what stock `neftune_noise_alpha` and a strategy add to a recipe's own batches."""
