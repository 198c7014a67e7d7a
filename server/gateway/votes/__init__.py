"""Majority answers: a chat is answered several times, and one of the majority is returned.

`plan` decides how many answers at most, `poll` draws and counts them, asking a `Sampler` and a
`Judge`, which `sampler` and `judge` are; `wording` says the outcome in a chat's form, and `relay`
does all of it for one request.
"""
