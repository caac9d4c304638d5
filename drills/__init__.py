"""What breaks the platform on purpose and proves that nothing was lost."""
