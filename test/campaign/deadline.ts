/** `promise`, or an error when it takes longer: a campaign must find out what hangs. */
export async function inTime<T>(
  promise: Promise<T>,
  deadlineMs: number,
  what = 'the end of the migration',
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come within ${deadlineMs} ms`)), deadlineMs);
  });
  return await Promise.race([promise, expired]).finally(() => clearTimeout(timer));
}
