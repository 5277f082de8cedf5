import type { Finding } from '../../migration/index.ts';

const WORDS = { pass: 'Pass', warn: 'Warn', fail: 'Fail' } as const satisfies Record<Finding['verdict'], string>;

/** A line for each finding, what was looked at in one column, and how many there are of which kind. */
export function findingsText(findings: readonly Finding[]): string {
  const width = Math.max(0, ...findings.map(({ rule }) => rule.length));
  const lines = findings.map(({ rule, verdict, reason }) => `${WORDS[verdict]}  ${rule.padEnd(width)}  ${reason}\n`);
  const count = (verdict: Finding['verdict']) => findings.filter((one) => one.verdict === verdict).length;
  const head = count('fail') === 0 ? 'The two ends fit' : 'The two ends do not fit';
  return `${lines.join('')}${head}: ${count('fail')} failed, ${count('warn')} warnings, ${count('pass')} passed.\n`;
}
