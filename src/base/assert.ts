/** A broken promise of our own code. Never for what a peer, a file or a person may do wrong: that is a FerryError. */
export function assert(condition: boolean, claim: string): asserts condition {
  if (!condition) throw new Error(`vmferry bug: ${claim}`);
}

/** Ends an exhaustive switch: adding a case breaks the build here. */
export function unreachable(value: never): never {
  throw new Error(`vmferry bug: unexpected ${JSON.stringify(value)}`);
}
