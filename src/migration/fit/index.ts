/** fit: whether two ends can migrate - facts of both, a table of rules, findings. Pure: who asks the ends, and how, is not known here. */
import { DEVICE_RULES } from './device-rules.ts';
import type { EndFacts } from './facts.ts';
import { MACHINE_RULES } from './machine-rules.ts';
import type { Finding, Rule } from './rule.ts';
import { SETTING_RULES } from './setting-rules.ts';
import { type Settlement, settle, withSettled } from './settle.ts';

export { preparedDevices, sectionKey } from './device-rules.ts';
export * from './facts.ts';
export type { Finding, Judgement, Rule } from './rule.ts';
export * from './settle.ts';
export { settleDialect } from './settle-dialect.ts';

export const FIT_RULES: readonly Rule[] = [...MACHINE_RULES, ...SETTING_RULES, ...DEVICE_RULES];

/** What all rules say, in their order, of ends that go by what is settled; by default as they would settle it themselves, if they can. */
export function compareEnds(
  source: EndFacts,
  destination: EndFacts,
  settled: readonly Settlement[] = settle(source, destination),
): readonly Finding[] {
  const ends = [withSettled(source, settled), withSettled(destination, settled)] as const;
  return FIT_RULES.flatMap(({ name, judge }) => judge(...ends, settled).map((found) => ({ rule: name, ...found })));
}
